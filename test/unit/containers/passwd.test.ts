import { describe, expect, test } from 'bun:test';
import { parseGroup, parsePasswd, resolveUser } from '../../../src/worker/containers/passwd.ts';

const passwd = [
  '# comment',
  '',
  'root:x:0:0:root:/root:/bin/sh',
  'app:x:1000:1001:App:/home/app:/bin/sh',
  '1234:x:5000:5000::/odd:/bin/sh',
  'nohome:x:7:7:::',
  'short:x',
  'letters:x:abc:1::/:',
  'second-root:x:0:9:other:/other:/bin/sh',
].join('\n');
const group = [
  'root:x:0:',
  'app:x:1001:',
  'audio:x:29:app,root',
  'video:x:44:app',
  'bad:x:y:app',
  '99:x:7777:',
].join('\n');
const database = { passwd, group };

describe('passwd and group files', () => {
  test('lines that libc would skip are skipped', () => {
    expect(parsePasswd(passwd).map((entry) => entry.name)).toEqual([
      'root',
      'app',
      '1234',
      'nohome',
      'second-root',
    ]);
    expect(parseGroup(group).map((entry) => entry.gid)).toEqual([0, 1001, 29, 44, 7777]);
  });
});

describe('a user', () => {
  test.each([
    ['', { uid: 0, gid: 0, additionalGids: [29], home: '/root' }],
    ['root', { uid: 0, gid: 0, additionalGids: [29], home: '/root' }],
    ['app', { uid: 1000, gid: 1001, additionalGids: [29, 44], home: '/home/app' }],
    ['1000', { uid: 1000, gid: 1001, additionalGids: [29, 44], home: '/home/app' }],
    ['app:audio', { uid: 1000, gid: 29, additionalGids: [], home: '/home/app' }],
    ['app:5', { uid: 1000, gid: 5, additionalGids: [], home: '/home/app' }],
    ['4242', { uid: 4242, gid: 0, additionalGids: [], home: '/' }],
    ['4242:4343', { uid: 4242, gid: 4343, additionalGids: [], home: '/' }],
    [':44', { uid: 0, gid: 44, additionalGids: [], home: '/root' }],
    ['app:', { uid: 1000, gid: 1001, additionalGids: [29, 44], home: '/home/app' }],
    ['nohome', { uid: 7, gid: 7, additionalGids: [], home: '/' }],
  ])("'%s' is resolved in the image's files", (user, identity) => {
    expect(resolveUser(user, database)).toEqual(identity);
  });

  test('whose number is also a name is taken by its number', () => {
    expect(resolveUser('1234', database)).toMatchObject({ uid: 1234, home: '/' });
    expect(resolveUser('app:99', database)).toMatchObject({ gid: 99 });
  });

  test('gets the groups that were added to it, by name or number, once', () => {
    expect(resolveUser('app', database, ['audio', '500', '29']).additionalGids).toEqual([29, 44, 500]);
  });

  test.each(['nobody', 'app:nogroup', '2147483648', 'app:2147483648', '-1', '1e3'])(
    "'%s' is refused",
    (user) => {
      expect(() => resolveUser(user, database)).toThrow(expect.objectContaining({ code: 'INVALID_INPUT' }));
    },
  );

  test('of an image without any files is root or a number', () => {
    expect(resolveUser('', { passwd: '', group: '' })).toEqual({
      uid: 0,
      gid: 0,
      additionalGids: [],
      home: '/',
    });
    expect(() => resolveUser('app', { passwd: '', group: '' })).toThrow(/not in the image's/);
  });
});
