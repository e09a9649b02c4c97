import { expect, test } from 'bun:test';
import { AttachSession, type ProcessStreams, type TerminalSize } from '../../../src/protocol/index.ts';

const MESSAGES = 1000;

/** A session whose process appears when it is told to, with what reaches that process. */
function session() {
  const reached: (TerminalSize | 'end' | number)[] = [];
  const exit = Promise.withResolvers<{ exitCode: number; reason: string }>();
  const process = Promise.withResolvers<ProcessStreams>();
  const closed = Promise.withResolvers<void>();
  const attached = new AttachSession('attach', () => process.promise);
  attached.opened({ send: () => {}, close: () => closed.resolve() });
  const appear = () =>
    process.resolve({
      exit: exit.promise,
      async *output() {
        await exit.promise;
        yield { stream: 'stdout', bytes: new Uint8Array(0) };
      },
      write: async (bytes) => void reached.push(bytes.length),
      endInput: () => {
        reached.push('end');
        exit.resolve({ exitCode: 0, reason: 'exited' });
      },
      resize: (size) => void reached.push(size),
      [Symbol.asyncDispose]: async () => {},
    });
  return { attached, reached, appear, closed: closed.promise };
}

test('of the sizes that come while the process does not listen, it gets the newest', async () => {
  const { attached, reached, appear, closed } = session();
  for (let rows = 1; rows <= MESSAGES; rows++) {
    attached.received(JSON.stringify({ op: 'resize', size: { rows: (rows % 1000) + 1, columns: 80 } }));
    attached.received(new Uint8Array(0));
  }
  attached.received(Uint8Array.of(1, 2));
  attached.received(JSON.stringify({ op: 'resize', size: { rows: 7, columns: 9 } }));
  for (let time = 0; time < MESSAGES; time++) attached.received(JSON.stringify({ op: 'end-input' }));
  appear();
  await closed;
  expect(reached).toEqual([{ rows: 7, columns: 9 }, 2, 'end']);
});
