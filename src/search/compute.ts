// What a schedule computes, so that searches of models of different size can be compared at equal cost too.

import type { RunPlan } from '../train/plan.ts';

/**
 * Floating-point operations of a whole run: a token takes 2 for each weight on its way forward, 2 for the
 * gradient that goes back through it, and 2 more for that of a weight that is trained (6 N D of Kaplan et al.
 * 2020, arXiv 2001.08361, without gradients of frozen weights). What a frozen encoder computes once a picture
 * is not in it.
 */
export const flopsOf = ({ stages }: Pick<RunPlan, 'stages'>): number =>
  stages.reduce((sum, { trained, frozen, steps, tokensPerStep }) => {
    const own = Object.values(trained).reduce((all, count) => all + count, 0);
    return sum + steps * tokensPerStep * (4 * (own + frozen) + 2 * own);
  }, 0);
