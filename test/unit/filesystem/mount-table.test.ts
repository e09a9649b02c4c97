import { expect, test } from 'bun:test';
import { mountedDevice, parseMountTable } from '../../../src/filesystem/index.ts';

const TABLE = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:39 / /srv/one ro,relatime - fuse.imgcred imgcred ro,user_id=0
41 22 0:40 / /srv/with\\040blank\\134slash ro - fuse.imgcred imgcred ro
42 40 0:41 / /srv/one ro - tmpfs none rw
`;

test.each([
  ['/', '254:0'],
  ['/srv/with blank\\slash', '0:40'],
  ['/srv/one', '0:41'],
  ['/srv', undefined],
  ['/srv/on', undefined],
])('at %s the device %s is mounted', (path, device) => {
  expect(mountedDevice(path, parseMountTable(TABLE))).toBe(device);
});

test('a mount’s type and options are those of its file system', () => {
  expect(parseMountTable(TABLE)[1]).toEqual({
    target: '/srv/one',
    device: '0:39',
    type: 'fuse.imgcred',
    options: 'ro,user_id=0',
  });
});
