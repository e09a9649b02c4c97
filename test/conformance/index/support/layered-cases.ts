import type { TarSpec } from '../../../fixtures/tree/index.ts';

/** Layers, lowest first, that show one behaviour each. */
export interface Case {
  readonly name: string;
  readonly layers: readonly (readonly TarSpec[])[];
  /**
   * Directories to which umoci gives the time of the unpacking: those that no entry describes, and those in
   * which it made or removed something behind its own back.
   */
  readonly untimed?: readonly string[];
  /**
   * Why the kernel's overlayfs cannot show the same tree from layers that are unpacked one by one, which it
   * mostly can.
   */
  readonly notOverlay?: string;
}

const root: TarSpec = { name: './', type: '5', mode: 0o755 };
const dir = (name: string, more: Partial<TarSpec> = {}): TarSpec => ({
  name: `${name}/`,
  type: '5',
  mode: 0o755,
  ...more,
});
const file = (name: string, data = name, more: Partial<TarSpec> = {}): TarSpec => ({ name, data, ...more });
const hard = (name: string, link: string): TarSpec => ({ name, type: '1', link });

export const LAYERED_CASES: readonly Case[] = [
  {
    name: 'files, directories, symlinks, devices and FIFOs of one layer',
    layers: [
      [
        root,
        dir('etc', { mode: 0o750, uid: 7, gid: 8, mtime: 12345 }),
        file('etc/passwd', 'root:x:0:0', { mode: 0o600, uid: 1000, gid: 1001 }),
        file('etc/empty', ''),
        { name: 'etc/link', type: '2', link: '../usr/bin/sh', uid: 5, mtime: 99 },
        { name: 'dev-null', type: '3', mode: 0o666, deviceMajor: 1, deviceMinor: 3 },
        { name: 'disk', type: '4', mode: 0o660, deviceMajor: 259, deviceMinor: 70000 },
        { name: 'pipe', type: '6', mode: 0o600 },
        file('suid', 'x', { mode: 0o6755 }),
        dir('tmp', { mode: 0o1777 }),
      ],
    ],
  },
  {
    name: 'hard links within a layer and across layers',
    notOverlay: 'a layer with a link into another cannot be unpacked alone',
    layers: [
      [
        root,
        dir('a'),
        file('a/one'),
        hard('two', 'a/one'),
        hard('three', './two'),
        { name: 'sym', type: '2', link: 'a/one' },
      ],
      [hard('a/four', 'three'), hard('symlinked', 'sym')],
      [file('a/one', 'replaced')],
    ],
  },
  {
    name: 'hard links before their targets’ new content, before their whiteout, and to a name that comes again',
    notOverlay: 'a layer with a link into another cannot be unpacked alone',
    layers: [
      [root, file('a', 'old'), file('b', 'old'), file('c', 'old'), dir('d'), file('d/e', 'old')],
      [
        hard('to-a', 'a'),
        file('a', 'new'),
        hard('to-b', 'b'),
        file('.wh.b', ''),
        file('.wh.c', ''),
        file('c', 'new'),
        hard('to-c', 'c'),
        hard('to-e', 'd/e'),
        file('d/.wh..wh..opq', ''),
        hard('d/back', 'to-e'),
      ],
      [hard('third', 'to-a'), file('.wh.to-a', '')],
    ],
    untimed: ['d'],
  },
  {
    name: 'whiteouts of files, directories and of what is not there',
    layers: [
      [
        root,
        dir('a'),
        dir('a/b'),
        file('a/b/c'),
        file('a/d'),
        file('e'),
        { name: 's', type: '2', link: 'a' },
      ],
      [file('a/.wh.b', ''), file('.wh.e', ''), file('.wh.nothing', ''), file('.wh.s', '')],
    ],
  },
  {
    name: 'a whiteout below a directory that is nowhere',
    notOverlay: 'unpacked alone, the upper layer has that directory',
    layers: [[root, file('a')], [file('x/y/.wh.z', '')]],
  },
  {
    name: 'an opaque directory before and after its new siblings',
    untimed: ['b/sub'],
    layers: [
      [
        root,
        dir('a'),
        file('a/old'),
        dir('a/sub'),
        file('a/sub/old'),
        dir('b'),
        file('b/old'),
        dir('b/sub'),
        file('b/sub/old'),
      ],
      [
        dir('a', { mode: 0o700 }),
        file('a/.wh..wh..opq', ''),
        file('a/new'),
        dir('b', { mode: 0o711 }),
        file('b/new'),
        dir('b/sub'),
        file('b/sub/new'),
        file('b/.wh..wh..opq', ''),
      ],
    ],
  },
  {
    name: 'whiteout and a new file of the same name in one layer, in both orders',
    untimed: ['c'],
    layers: [
      [root, file('a', 'old'), file('b', 'old'), dir('c'), file('c/old')],
      [
        file('.wh.a', ''),
        file('a', 'new'),
        file('b', 'new'),
        file('.wh.b', ''),
        dir('c'),
        file('c/new'),
        file('.wh.c', ''),
      ],
    ],
  },
  {
    name: 'a directory replaced by a file and a file by a directory',
    layers: [
      [root, dir('a'), file('a/x'), file('b'), { name: 'l', type: '2', link: 'a' }],
      [file('a', 'now a file'), dir('b', { mode: 0o700 }), file('b/y'), dir('l'), file('l/z')],
    ],
  },
  {
    name: 'directories that come after their children or never',
    layers: [[root, file('late/x'), dir('late', { mode: 0o700, uid: 3, mtime: 5 }), file('never/deep/y')]],
    untimed: ['', 'never', 'never/deep'],
  },
  {
    name: 'an archive without an entry for its root',
    layers: [[file('a')]],
    untimed: [''],
  },
  {
    name: 'duplicate entries, of which the last counts',
    layers: [
      [
        root,
        file('a', 'first', { mode: 0o600 }),
        file('a', 'second'),
        dir('d', { uid: 1 }),
        dir('d', { uid: 2 }),
        file('./a', 'third'),
      ],
    ],
  },
  {
    name: 'the same layer twice',
    layers: [
      [root, dir('a'), file('a/x'), hard('y', 'a/x')],
      [root, dir('a'), file('a/x'), hard('y', 'a/x')],
    ],
  },
  {
    name: 'names with ./ and trailing and doubled slashes',
    layers: [[root, { name: './/a//', type: '5', mode: 0o755 }, file('./a/./b'), file('a//c')]],
  },
  {
    name: 'a path through a symlink that stays within the image',
    notOverlay: 'unpacked alone, the upper layer has a directory of that name',
    layers: [
      [
        root,
        dir('usr'),
        dir('usr/lib'),
        { name: 'lib', type: '2', link: 'usr/lib' },
        { name: 'abs', type: '2', link: '/usr' },
      ],
      [file('lib/x'), file('abs/lib/y')],
    ],
  },
  {
    name: 'names that are no UTF-8, and long ones',
    layers: [
      [
        root,
        file(new Uint8Array([0x61, 0xff, 0xfe, 0x0a, 0x01]) as never, 'x'),
        dir('d'.repeat(200)),
        file(`${'d'.repeat(200)}/${'e'.repeat(255)}`),
        { name: 'long-link', type: '2', link: 't'.repeat(3000) },
      ],
    ],
  },
  {
    name: 'xattrs and capabilities, replaced with their file',
    layers: [
      [
        root,
        file('cap', 'x', {
          pax: [
            [
              'SCHILY.xattr.security.capability',
              Buffer.from('0100000200040000000000000000000000000000', 'hex'),
            ],
          ],
        }),
        file('user', 'x', {
          pax: [
            ['SCHILY.xattr.user.a', 'one'],
            ['SCHILY.xattr.user.empty', ''],
            ['SCHILY.xattr.user.b', new Uint8Array([0, 255, 10])],
          ],
        }),
        dir('d', {
          pax: [
            ['SCHILY.xattr.user.d', 'dir'],
            ['SCHILY.xattr.trusted.t', 'x'],
          ],
        }),
        dir('e', { pax: [['SCHILY.xattr.user.e', 'gone']] }),
      ],
      [dir('e'), file('user', 'y')],
    ],
  },
  {
    name: 'times with nanoseconds and before 1970',
    layers: [
      [
        root,
        file('ns', 'x', { pax: [['mtime', '1234567890.123456789']] }),
        file('negative', 'x', { pax: [['mtime', '-1.5']] }),
        file('base256', 'x', { mtime: -86400 }),
        { name: 'link', type: '2', link: 'ns', pax: [['mtime', '7.000000001']] },
        dir('dir', { pax: [['mtime', '3.25']] }),
      ],
    ],
  },
  {
    name: 'ids beyond 16 and 31 bits',
    layers: [
      [
        root,
        file('a', 'x', { uid: 3_000_000_000, gid: 4_000_000_000 }),
        file('b', 'x', {
          pax: [
            ['uid', '2147483648'],
            ['gid', '70000'],
          ],
        }),
      ],
    ],
  },
];
