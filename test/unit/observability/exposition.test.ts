import { expect, test } from 'bun:test';
import { renderMetrics, samplesOf } from '../../../src/observability/index.ts';

test('a family is its help, its type, and a line a sample', () => {
  const text = renderMetrics([
    {
      name: 'reads_total',
      type: 'counter',
      help: 'Reads, by class.',
      samples: samplesOf('class', { auth: 2, missing: 0 }),
    },
    { name: 'mounts', type: 'gauge', help: 'Mounts.', samples: [{ value: 1.5 }] },
  ]);
  expect(text).toBe(
    '# HELP reads_total Reads, by class.\n# TYPE reads_total counter\n' +
      'reads_total{class="auth"} 2\nreads_total{class="missing"} 0\n' +
      '# HELP mounts Mounts.\n# TYPE mounts gauge\nmounts 1.5\n',
  );
});

test('a family without samples is left out', () => {
  expect(renderMetrics([{ name: 'none', type: 'gauge', help: 'Nothing.', samples: [] }])).toBe('');
});

test('quotes, backslashes and line ends can’t end a label or a line', () => {
  const text = renderMetrics([
    {
      name: 'workers',
      type: 'gauge',
      help: 'One\nline.',
      samples: [{ labels: { worker: 'a"} 1\nb\\c' }, value: 1 }],
    },
  ]);
  expect(text).toBe(
    '# HELP workers One\\nline.\n# TYPE workers gauge\nworkers{worker="a\\"} 1\\nb\\\\c"} 1\n',
  );
});
