export const recipeFiles: Record<string, string>;
export const LANGUAGE: Record<string, { hub: string; title: string }>;
export const ENCODER: Record<string, { hub: string; title: string }>;
export const PRETRAIN: Record<string, { hub: string; title: string }>;

/** `name` is that of the file, or `mine`. */
export function recipeText(variant: {
  name: string;
  language?: string;
  encoder?: string;
  pretrain?: string;
  connector?: string;
  skips?: boolean;
  adapters?: string;
}): string;
