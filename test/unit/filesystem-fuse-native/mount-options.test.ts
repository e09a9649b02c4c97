import { expect, test } from 'bun:test';
import { formatMountOptions } from '../../../src/filesystem/drivers/fuse-native/mount-options.ts';

test('root’s mounts are for all users and keep set-user-id and devices', () => {
  const options = formatMountOptions({}, true);
  for (const word of ['ro', 'allow_other', 'suid', 'dev', 'default_permissions']) {
    expect(options.slice(2).split(',')).toContain(word);
  }
});

test('an ordinary user’s ask for neither unless told', () => {
  expect(formatMountOptions({}, false)).not.toMatch(/allow_other|suid|dev\b/);
  expect(formatMountOptions({ allowOther: true }, false)).toContain('allow_other');
});

test('the string fits the 1,023 bytes that fuse-native copies', () => {
  expect(formatMountOptions({}, true).length).toBeLessThan(1024);
});
