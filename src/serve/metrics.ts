// Counters, gauges and histograms in Prometheus's text format (version 0.0.4).

type Labels = Readonly<Record<string, string>>;

const escaped = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');

/** `{a="1",b="2"}`, or nothing. */
function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

/** Series of one name, by their labels. */
class Series<T> {
  private readonly entries = new Map<string, { labels: Labels; value: T }>();
  private readonly initial: () => T;

  constructor(initial: () => T) {
    this.initial = initial;
  }

  of(labels: Labels): { labels: Labels; value: T } {
    const key = labelText(labels);
    const entry = this.entries.get(key) ?? { labels, value: this.initial() };
    this.entries.set(key, entry);
    return entry;
  }

  all(): Iterable<{ labels: Labels; value: T }> {
    return this.entries.values();
  }
}

export interface Counter {
  add(amount: number, labels?: Labels): void;
}

export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

export interface Metrics {
  /** A number that only grows; its name ends with `_total`. */
  counter(name: string, help: string): Counter;
  /** `read` gives the present values. */
  gauge(name: string, help: string, read: () => Iterable<readonly [Labels, number]>): void;
  /** `bounds` are the upper bounds of the buckets, ascending. */
  histogram(name: string, help: string, bounds: readonly number[]): Histogram;
  /** What `GET /metrics` answers. */
  text(): string;
}

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function createMetrics(): Metrics {
  const parts: (() => string[])[] = [];
  const describe = (name: string, help: string, type: string, lines: () => string[]) =>
    parts.push(() => [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines()]);

  return {
    counter(name, help) {
      const series = new Series(() => 0);
      describe(name, help, 'counter', () => Array.from(series.all(), ({ labels, value }) => `${name}${labelText(labels)} ${value}`));
      return {
        add(amount, labels = {}) {
          series.of(labels).value += amount;
        },
      };
    },
    gauge(name, help, read) {
      describe(name, help, 'gauge', () => Array.from(read(), ([labels, value]) => `${name}${labelText(labels)} ${value}`));
    },
    histogram(name, help, bounds) {
      const series = new Series(() => ({ counts: bounds.map(() => 0), sum: 0, count: 0 }));
      describe(name, help, 'histogram', () =>
        Array.from(series.all(), ({ labels, value: { counts, sum, count } }) => [
          ...bounds.map((bound, i) => `${name}_bucket${labelText({ ...labels, le: String(bound) })} ${counts[i]}`),
          `${name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`,
          `${name}_sum${labelText(labels)} ${sum}`,
          `${name}_count${labelText(labels)} ${count}`,
        ]).flat(),
      );
      return {
        observe(value, labels = {}) {
          const { value: at } = series.of(labels);
          bounds.forEach((bound, i) => {
            if (value <= bound) at.counts[i]++;
          });
          at.sum += value;
          at.count++;
        },
      };
    },
    text: () => `${parts.flatMap((part) => part()).join('\n')}\n`,
  };
}
