import { expect, test } from 'bun:test';
import { findMountedDevice } from '../../../src/filesystem/drivers/fuse-native/mount-table.ts';

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
])('at %s is %s', (path, device) => {
  expect(findMountedDevice(TABLE, path)).toBe(device);
});
