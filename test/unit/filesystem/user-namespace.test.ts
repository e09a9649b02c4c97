import { describe, expect, test } from 'bun:test';
import { mappedOwners } from '../../../src/filesystem/mapped-owners.ts';
import { isMapped, parseIdMap, readUserNamespace } from '../../../src/filesystem/user-namespace.ts';

const RANGES = parseIdMap('         0       1000          1\n         1     100000      65536\n');
const SINGLE = parseIdMap('         0       1000          1\n');

describe('a user name space', () => {
  test('is read from the kernel’s map', () => {
    expect(RANGES).toEqual([
      { inside: 0, outside: 1000, length: 1 },
      { inside: 1, outside: 100_000, length: 65_536 },
    ]);
    expect(parseIdMap('')).toEqual([]);
  });

  test('has the ids of its ranges and no others', () => {
    for (const [id, known] of [
      [0, true],
      [1, true],
      [65_536, true],
      [65_537, false],
      [4_294_967_294, false],
    ] as const)
      expect(isMapped(RANGES, id)).toBe(known);
    expect(isMapped(SINGLE, 1)).toBe(false);
    expect(isMapped([], 0)).toBe(false);
  });

  test('of this process says what it may', () => {
    const { uids, mayMount } = readUserNamespace();
    expect(uids.length).toBeGreaterThan(0);
    expect(typeof mayMount).toBe('boolean');
  });
});

describe('the owner of an image’s file', () => {
  const file = (change: object) => ({
    ino: 7,
    mode: 0o100644,
    uid: 0,
    gid: 0,
    size: 1,
    blocks: 1,
    nlink: 1,
    rdevMajor: 0,
    rdevMinor: 0,
    mtimeSeconds: 1,
    mtimeNanoseconds: 2,
    ...change,
  });
  const single = mappedOwners({ initial: false, uids: SINGLE, gids: SINGLE });

  test('stays who it is where the name space knows the id', () => {
    const attributes = file({ uid: 33, gid: 42, mode: 0o104755 });
    expect(mappedOwners({ initial: true, uids: [], gids: [] })(attributes)).toBe(attributes);
    expect(mappedOwners({ initial: false, uids: RANGES, gids: RANGES })(attributes)).toBe(attributes);
    expect(single(file({}))).toEqual(file({}));
  });

  test('is root where it does not', () => {
    expect(single(file({ uid: 33, gid: 42 }))).toEqual(file({ uid: 0, gid: 0 }));
    expect(single(file({ gid: 42 }))).toEqual(file({ gid: 0 }));
  });

  test('lends nobody root’s rights by a set-id program that was another’s', () => {
    expect(single(file({ uid: 33, mode: 0o104755 })).mode).toBe(0o100755);
    expect(single(file({ gid: 42, mode: 0o106755 })).mode).toBe(0o104755);
    expect(single(file({ uid: 0, gid: 0, mode: 0o106755 })).mode).toBe(0o106755);
    expect(single(file({ gid: 8, mode: 0o042775 })).mode).toBe(0o042775);
  });
});
