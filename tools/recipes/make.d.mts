/** Texts of the recipes by file name. */
export const recipeFiles: Record<string, string>;
