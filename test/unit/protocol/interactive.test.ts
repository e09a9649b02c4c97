import { describe, expect, test } from 'bun:test';
import {
  clientMessageSchema,
  decodeOutput,
  encodeOutput,
  FlowWindow,
  serverMessageSchema,
  WINDOW_BYTES,
} from '../../../src/protocol/index.ts';

describe('output on the wire', () => {
  test.each(['stdout', 'stderr'] as const)('of %s is what it was', (stream) => {
    const bytes = Uint8Array.of(0, 1, 2, 255);
    expect(decodeOutput(encodeOutput(stream, bytes))).toEqual({ stream, bytes });
    expect(decodeOutput(encodeOutput(stream, new Uint8Array(0)))?.bytes).toHaveLength(0);
  });

  test('of no known stream is none', () => {
    expect(decodeOutput(Uint8Array.of(3, 1))).toBeUndefined();
    expect(decodeOutput(new Uint8Array(0))).toBeUndefined();
  });
});

describe('a message', () => {
  test.each([
    { op: 'exec' },
    { op: 'exec', request: { command: [] } },
    { op: 'exec', request: { command: ['a'], workdir: 'relative' } },
    { op: 'exec', request: { command: ['a'], env: { 'A=B': '' } } },
    { op: 'resize', size: { rows: -1, columns: 1 } },
    { op: 'taken', bytes: 0 },
    { op: 'taken', bytes: WINDOW_BYTES + 1 },
    { op: 'unknown' },
    { op: 'end-input', more: 1 },
  ])('of a client like %j is refused', (message) => {
    expect(clientMessageSchema.safeParse(message).success).toBe(false);
  });

  test.each([{ event: 'exit', exit_code: 256 }, { event: 'failed' }, {}])(
    'of a server like %j is refused',
    (message) => {
      expect(serverMessageSchema.safeParse(message).success).toBe(false);
    },
  );
});

describe('a flow window', () => {
  const settled = async (promise: Promise<unknown>): Promise<boolean> => {
    let done = false;
    void promise.then(() => {
      done = true;
    });
    await new Promise(setImmediate);
    return done;
  };

  test('lets so much through and no more, until it was taken', async () => {
    const window = new FlowWindow();
    expect(await window.reserve(WINDOW_BYTES)).toBe(true);
    const waiting = window.reserve(100);
    expect(await settled(waiting)).toBe(false);
    window.release(99);
    expect(await settled(waiting)).toBe(false);
    window.release(1);
    expect(await waiting).toBe(true);
  });

  test('never grows beyond its size, whatever the other end says', async () => {
    const window = new FlowWindow();
    window.release(WINDOW_BYTES);
    await window.reserve(WINDOW_BYTES);
    expect(await settled(window.reserve(1))).toBe(false);
  });

  test('that is closed lets nobody wait', async () => {
    const window = new FlowWindow();
    await window.reserve(WINDOW_BYTES);
    const waiting = window.reserve(1);
    window.close();
    expect(await waiting).toBe(false);
  });
});
