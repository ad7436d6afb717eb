// Log-probabilities of tokens, of the model itself: before temperature, top-k and top-p.

export interface TokenLogprob {
  token: number;
  /** Natural logarithm of the probability; no less than -9999, which stands for nothing at all. */
  logprob: number;
}

export interface ChosenLogprob extends TokenLogprob {
  /** The likeliest tokens, likeliest first; of equals, the one with the smaller id. */
  top: TokenLogprob[];
}

const LEAST = -9999;

/** The log-probability of `token` under `logits` [vocabulary], beside those of the `count` likeliest. */
export function logprobsOf(logits: Float32Array, token: number, count: number): ChosenLogprob {
  const largest = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const logSum = largest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
  const of = (id: number): TokenLogprob => ({ token: id, logprob: Math.max(LEAST, logits[id] - logSum) });
  return { ...of(token), top: likeliest(logits, count).map(of) };
}

function likeliest(logits: Float32Array, count: number): number[] {
  // a short sorted list: of a large vocabulary, few scores ever enter it
  const top: number[] = [];
  if (count === 0) return top;
  for (let id = 0; id < logits.length; id++) {
    if (top.length === count && logits[id] <= logits[top[count - 1]]) continue;
    let at = top.length;
    while (at > 0 && logits[top[at - 1]] < logits[id]) at--;
    top.splice(at, 0, id);
    top.length = Math.min(top.length, count);
  }
  return top;
}
