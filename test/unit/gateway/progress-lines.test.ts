import { describe, expect, test } from 'bun:test';
import { ImgcredError } from '../../../src/errors/index.ts';
import { progressLines } from '../../../src/gateway/progress-lines.ts';

interface Line {
  readonly kind: string;
  readonly n: number;
}

async function linesOf(work: (tell: (line: Line) => void) => Promise<Line>) {
  const lines = [];
  for await (const line of progressLines<Line>(work)) lines.push(line);
  return lines;
}

describe('lines of progress', () => {
  test('are thinned out where they count, and the last count of a row comes', async () => {
    const lines = await linesOf(async (tell) => {
      tell({ kind: 'step', n: 0 });
      for (let n = 1; n <= 1000; n++) tell({ kind: 'progress', n });
      tell({ kind: 'step', n: 1 });
      tell({ kind: 'step', n: 2 });
      return { kind: 'done', n: 3 };
    });
    expect(lines.filter(({ kind }) => kind !== 'progress')).toEqual([
      { kind: 'step', n: 0 },
      { kind: 'step', n: 1 },
      { kind: 'step', n: 2 },
      { kind: 'done', n: 3 },
    ]);
    const counts = lines.flatMap((line) => ('n' in line && line.kind === 'progress' ? [line.n] : []));
    expect(counts[0]).toBe(1);
    expect(counts.at(-1)).toBe(1000);
    expect(counts.length).toBeLessThan(50);
  });

  test('end with the error of the work', async () => {
    const lines = await linesOf(async (tell) => {
      tell({ kind: 'progress', n: 1 });
      throw new ImgcredError('CORRUPT', 'a layer is broken', { hint: 'build it again' });
    });
    expect(lines).toEqual([
      { kind: 'progress', n: 1 },
      { kind: 'error', error: { code: 'CORRUPT', message: 'a layer is broken', hint: 'build it again' } },
    ]);
  });
});
