import { expect, test } from 'bun:test';
import { resolve } from 'node:path';
import { parseMount } from '../../../src/cli/mount-option.ts';
import { ImgcredError } from '../../../src/errors/index.ts';
import { containerOverridesSchema } from '../../../src/protocol/index.ts';

type Mount = ReturnType<typeof parseMount>;

const accepted: [text: string, mount: Mount][] = [
  ['type=bind,source=/a,target=/b', { type: 'bind', source: '/a', target: '/b' }],
  ['source=/a,target=/b', { type: 'bind', source: '/a', target: '/b' }],
  ['type=bind,src=/a,dst=/b,ro', { type: 'bind', source: '/a', target: '/b', read_only: true }],
  [
    'type=bind,source=/a,destination=/b,readonly',
    { type: 'bind', source: '/a', target: '/b', read_only: true },
  ],
  ['type=bind,source=/a,target=/b,ro=true', { type: 'bind', source: '/a', target: '/b', read_only: true }],
  ['type=bind,source=/a,target=/b,ro=false', { type: 'bind', source: '/a', target: '/b' }],
  ['type=bind,source=rel,target=/b', { type: 'bind', source: resolve('rel'), target: '/b' }],
  ['type=bind,source=/a=b,target=/b', { type: 'bind', source: '/a=b', target: '/b' }],
  ['type=tmpfs,target=/t', { type: 'tmpfs', target: '/t' }],
  ['type=tmpfs,target=/t,size=64m', { type: 'tmpfs', target: '/t', size_bytes: 64 << 20 }],
  ['type=tmpfs,target=/t,tmpfs-size=4096', { type: 'tmpfs', target: '/t', size_bytes: 4096 }],
  ['type=tmpfs,target=/t,tmpfs-mode=700,ro', { type: 'tmpfs', target: '/t', mode: 0o700, read_only: true }],
];
for (const [text, mount] of accepted) {
  test(`reads ${text}`, () => {
    expect(parseMount(text)).toEqual(mount);
    expect(containerOverridesSchema.safeParse({ mounts: [mount] }).success).toBe(true);
  });
}

const refused: [text: string, problem: string][] = [
  ['', 'target is missing'],
  ['type=bind,source=/a', 'target is missing'],
  ['type=bind,target=/b', 'source is missing'],
  ['type=bind,source=/a,target=b', 'target must be an absolute path'],
  ['type=volume,source=/a,target=/b', "there is no mount type 'volume'"],
  ['type=bind,source=/a,target=/b,shared', "there is no field 'shared'"],
  ['type=tmpfs,target=/t,source=/a', "there is no field 'source'"],
  ['type=tmpfs,target=/t,tmpfs-mode=9', 'tmpfs-mode must be octal'],
  ['type=tmpfs,target=/t,size=big', 'size must be a size'],
  ['type=tmpfs,target=/t,size=0', 'size must be a size'],
  ['type=bind,source=,target=/b', 'source is missing'],
  ['type=bind,source=/a,target=/b,ro=yes', "ro is true or false, not 'yes'"],
];
for (const [text, problem] of refused) {
  test(`refuses '${text}'`, () => {
    const refusal = () => parseMount(text);
    expect(refusal).toThrow(ImgcredError);
    expect(refusal).toThrow(problem);
  });
}
