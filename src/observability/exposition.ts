/** A figure, with the labels that tell it from its siblings. */
export interface MetricSample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Figures of one name. A counter's never fall while its process runs; its name ends in `_total`. */
export interface MetricFamily {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  /** What it counts, with its unit, in one line. */
  readonly help: string;
  readonly samples: readonly MetricSample[];
}

/** The content type of `renderMetrics`. */
export const METRICS_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/**
 * Figures as text that Prometheus and its kin read. A family without samples is left out.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/ text format 0.0.4
 */
export function renderMetrics(families: readonly MetricFamily[]): string {
  return families
    .filter(({ samples }) => samples.length > 0)
    .map(({ name, type, help, samples }) => {
      const lines = samples.map(({ labels, value }) => `${name}${labelText(labels)} ${value}\n`);
      return `# HELP ${name} ${escaped(help)}\n# TYPE ${name} ${type}\n${lines.join('')}`;
    })
    .join('');
}

/** Samples of a record: one a key, which stands in the label `label`. */
export function samplesOf(
  label: string,
  values: Readonly<Partial<Record<string, number>>>,
): readonly MetricSample[] {
  return Object.entries(values).map(([key, value]) => ({ labels: { [label]: key }, value: value ?? 0 }));
}

function labelText(labels: Readonly<Record<string, string>> = {}): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value, true)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escaped(text: string, quotes = false): string {
  const lines = text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
  return quotes ? lines.replaceAll('"', '\\"') : lines;
}
