import { describe, expect, test } from 'bun:test';
import { hasPassthrough, hasResend, negotiate } from '../../../src/filesystem/drivers/kernel/negotiation.ts';
import { Reply } from '../../../src/filesystem/drivers/kernel/replies.ts';

const everything = { major: 7, minor: 45, maxReadahead: 131072, flags: -1, flags2: -1 };

function answer(offered: typeof everything, passthrough: boolean) {
  const reply = new Reply(256);
  reply.begin(1, 0);
  const session = negotiate(offered, { passthrough, resend: true }, reply);
  return { session, view: new DataView(reply.memory.bytes.slice(16, reply.length).buffer) };
}

describe('INIT', () => {
  test('takes what the kernel offers, and passthrough with one level of stacking', () => {
    const { session, view } = answer(everything, true);
    expect(hasPassthrough(session)).toBe(true);
    expect(hasResend(session)).toBe(true);
    expect(view.byteLength).toBe(64);
    expect(view.getUint16(28, true)).toBe(256);
    expect(view.getUint32(36, true)).toBe(1);
  });

  test('does not ask for passthrough unasked, so that more file systems fit on top', () => {
    const { session, view } = answer(everything, false);
    expect(hasPassthrough(session)).toBe(false);
    expect(view.getUint32(36, true)).toBe(0);
  });

  test('asks for nothing that the kernel did not offer', () => {
    const { session } = answer({ ...everything, minor: 31, flags: 1 << 13, flags2: 0 }, true);
    expect(session).toEqual({ minor: 31, flags: 1 << 13, flags2: 0 });
  });

  test('leaves the second word of flags alone when the kernel does not read it', () => {
    const { session } = answer({ ...everything, flags: ~(1 << 30) }, true);
    expect(session.flags2).toBe(0);
  });

  test.each([
    [6, 45],
    [8, 0],
    [7, 30],
  ])('refuses protocol %d.%d', (major, minor) => {
    expect(() => answer({ ...everything, major, minor }, false)).toThrow('speaks FUSE');
  });
});
