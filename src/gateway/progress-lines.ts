import { toImgcredError } from '../errors/index.ts';
import { TransferRate } from './transfer-rate.ts';

const EVERY_MS = 100;

interface ErrorLine {
  readonly kind: 'error';
  readonly error: { code: string; message: string; hint?: string };
}

interface ProgressLine {
  readonly kind: string;
  readonly bytes?: number;
  readonly bytes_total?: number;
}

/**
 * What `work` tells of its progress, then its result or its error, as lines. Of one kind after another, lines that only
 * count (`progress`, `upload`) come no oftener than ten times a second, and say how fast their bytes come.
 */
export async function* progressLines<Line extends ProgressLine>(
  work: (onProgress: (line: Line) => void) => Promise<Line>,
): AsyncGenerator<Line | ErrorLine> {
  const queue: (Line | ErrorLine)[] = [];
  let wake = () => {};
  let last: { kind: string; at: number } | undefined;
  /** The newest count that was held back: the last one of a row must not be lost. */
  let held: Line | undefined;
  const rates = new Map([...COUNTING].map((kind) => [kind, new TransferRate()]));
  const push = (line: Line | ErrorLine) => {
    queue.push(line);
    wake();
  };
  const tell = (line: Line) => {
    const { kind, bytes, bytes_total } = line;
    const counts = bytes !== undefined && bytes_total !== undefined;
    push({ ...line, ...(counts ? rates.get(kind)?.of(bytes, bytes_total, performance.now()) : undefined) });
  };
  const take = (line: Line) => {
    const now = performance.now();
    if (COUNTING.has(line.kind) && last?.kind === line.kind && now - last.at < EVERY_MS) {
      held = line;
      return;
    }
    if (held !== undefined && held.kind !== line.kind) tell(held);
    held = undefined;
    last = { kind: line.kind, at: now };
    tell(line);
  };
  let finished = false;
  work(take)
    .then(take, (thrown: unknown) => {
      push({ kind: 'error', ...toImgcredError(thrown).toJSON() });
    })
    .finally(() => {
      finished = true;
      wake();
    });
  for (;;) {
    const line = queue.shift();
    if (line !== undefined) yield line;
    else if (finished) return;
    else await new Promise<void>((resolve) => (wake = resolve));
  }
}

const COUNTING: ReadonlySet<string> = new Set(['progress', 'upload']);
