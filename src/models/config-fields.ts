// Fields of a Hugging Face config.json. What a file leaves out has the value of transformers' class, since
// `save_pretrained` and people write only what differs; tests/reference/defaults.json has those values.

import { z } from 'zod';

type Count = z.ZodDefault<ReturnType<typeof positive>>;
const positive = () => z.int().positive();

/** Whole numbers above 0, each with the value that stands for a missing one. */
export function counts<Name extends string>(defaults: Readonly<Record<Name, number>>): Record<Name, Count> {
  const fields = Object.entries<number>(defaults).map(([name, value]) => [name, positive().default(value)]);
  return Object.fromEntries(fields) as Record<Name, Count>;
}
