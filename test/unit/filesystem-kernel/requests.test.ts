import { describe, expect, test } from 'bun:test';
import { Errno, Opcode } from '../../../src/filesystem/drivers/kernel/protocol.ts';
import { decode, fields, readBody, requestBytes } from './request-bytes.ts';

describe('a request', () => {
  test('gives the fields of its header', () => {
    const { request, result } = decode(
      requestBytes(Opcode.STATFS, { node: 42, unique: 0x8000_0001_0000_0002n }),
    );
    expect(result).toBe(0);
    expect(request).toMatchObject({
      opcode: 17,
      node: 42,
      uniqueLow: 2,
      uniqueHigh: 0x8000_0001,
      repeated: true,
    });
  });

  test('of fewer bytes than a header cannot be answered', () => {
    expect(decode(requestBytes(Opcode.STATFS).subarray(0, 39)).result).toBe(-1);
  });

  test('whose claimed length is not its length is refused', () => {
    for (const claimedLength of [0, 39, 41, 0xffff_ffff]) {
      expect(decode(requestBytes(Opcode.STATFS, { claimedLength })).result).toBe(Errno.EIO);
    }
  });

  test('whose extensions are longer than itself is refused', () => {
    expect(decode(requestBytes(Opcode.STATFS, { extensionWords: 1 })).result).toBe(Errno.EIO);
  });

  test('has its body end where its extensions begin', () => {
    const body = fields('name', 0, 0);
    const { request } = decode(
      requestBytes(Opcode.LOOKUP, { body: body.subarray(0, 5 + 8), extensionWords: 1 }),
    );
    expect(request.bodyLength).toBe(5);
    expect(Buffer.from(request.lookupName() ?? []).toString()).toBe('name');
  });

  test('for an inode number beyond 32 bits asks about none', () => {
    const bytes = requestBytes(Opcode.GETATTR, { node: 2 ** 32 + 1, body: new Uint8Array(16) });
    expect(decode(bytes).request.node).toBe(0);
  });

  const short: [string, number, number][] = [
    ['LOOKUP', Opcode.LOOKUP, 1],
    ['GETATTR', Opcode.GETATTR, 15],
    ['OPEN', Opcode.OPEN, 7],
    ['READ', Opcode.READ, 39],
    ['RELEASE', Opcode.RELEASE, 23],
    ['GETXATTR', Opcode.GETXATTR, 9],
    ['LISTXATTR', Opcode.LISTXATTR, 7],
    ['INIT', Opcode.INIT, 15],
    ['READDIR', Opcode.READDIR, 39],
    ['READDIRPLUS', Opcode.READDIRPLUS, 39],
    ['ACCESS', Opcode.ACCESS, 7],
    ['INTERRUPT', Opcode.INTERRUPT, 7],
    ['LSEEK', Opcode.LSEEK, 23],
    ['STATX', Opcode.STATX, 23],
  ];
  test.each(short)('%s with too short a body is refused', (_, opcode, length) => {
    expect(decode(requestBytes(opcode, { body: new Uint8Array(length).fill(1) })).result).toBe(Errno.EIO);
  });

  test('READ gives handle, offset and size', () => {
    const body = readBody(3n, 0x1_2345_6789n, 131072);
    const { request } = decode(requestBytes(Opcode.READ, { body }));
    expect(request).toMatchObject({ handle: 3, offset: 0x1_2345_6789, size: 131072 });
  });

  test('an offset beyond 2⁵³ is -1', () => {
    const body = readBody(0n, 2n ** 63n, 1);
    expect(decode(requestBytes(Opcode.READ, { body })).request.offset).toBe(-1);
  });

  const names: [string, Uint8Array, string | undefined][] = [
    ['a name', fields('etc'), 'etc'],
    ['a name of odd bytes', fields('\xff\x01\n'), '\xff\x01\n'],
    ['an empty name', fields('', ''), undefined],
    ['a name without its NUL', Buffer.from('etc'), undefined],
    ['a name with a slash', fields('a/b'), undefined],
  ];
  test.each(names)('LOOKUP of %s', (_, body, expected) => {
    const name = decode(requestBytes(Opcode.LOOKUP, { body })).request.lookupName();
    expect(name === undefined ? undefined : Buffer.from(name).toString('latin1')).toBe(expected);
  });

  test('GETXATTR gives the room and the name', () => {
    const { request } = decode(requestBytes(Opcode.GETXATTR, { body: fields(64, 0, 'user.a/b') }));
    expect(request.xattrRoom).toBe(64);
    expect(Buffer.from(request.xattrName() ?? []).toString()).toBe('user.a/b');
  });

  test('INIT of a kernel before 7.36 has no second word of flags', () => {
    expect(decode(requestBytes(Opcode.INIT, { body: fields(7, 31, 4096, 5) })).request.init()).toEqual({
      major: 7,
      minor: 31,
      maxReadahead: 4096,
      flags: 5,
      flags2: 0,
    });
  });
});
