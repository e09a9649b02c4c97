// A thread that does what it is told: waits at a gate, fails, ends.
import { readFileSync } from 'node:fs';
import { ImgcredError } from '../../../src/errors/index.ts';
import { serveTask } from '../../../src/threads/index.ts';

export type HeldOrder = { readonly gate: string } | { readonly fail: 'known' | 'unforeseen' | 'later' };

serveTask(async (order: HeldOrder) => {
  if ('gate' in order) return { read: readFileSync(order.gate, 'utf8'), bytes: new Uint8Array([1, 2, 3]) };
  if (order.fail === 'later') {
    queueMicrotask(() => {
      throw new Error('out of turn');
    });
    await new Promise(() => {});
  }
  if (order.fail === 'unforeseen') throw new TypeError('x is not a y');
  throw new ImgcredError('CONFLICT', 'it is there already', { hint: 'move it away' });
});
