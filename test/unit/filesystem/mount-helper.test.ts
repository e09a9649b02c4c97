import { afterAll, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findMountHelper } from '../../../src/filesystem/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'imgcred-helper-'));
afterAll(() => rmSync(directory, { recursive: true }));
const install = (name: string) => {
  const path = join(directory, name);
  writeFileSync(path, '#!/bin/sh\n', { mode: 0o755 });
  return path;
};

test('the mount helper is fusermount3, else the one of fuse 2, on PATH first', () => {
  const usual = findMountHelper('');
  if (usual !== undefined) expect(usual).toMatch(/^\/(usr\/)?bin\/fusermount3?$/);
  const older = install('fusermount');
  expect(findMountHelper(directory)).toBe(usual?.endsWith('3') ? usual : older);
  const newer = install('fusermount3');
  expect(findMountHelper(directory)).toBe(newer);
});
