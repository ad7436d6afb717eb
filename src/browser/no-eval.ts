// Imported before anything that has a schema: zod makes functions out of text where it may, and pages
// forbid that.

import { config } from 'zod';

config({ jitless: true });
