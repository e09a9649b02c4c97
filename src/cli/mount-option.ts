import { resolve } from 'node:path';
import { ImgcredError } from '../errors/index.ts';
import type { ContainerOverrides } from '../protocol/index.ts';
import { sizeOf } from './option-values.ts';

const SIZE = sizeOf(1);

type Mount = NonNullable<ContainerOverrides['mounts']>[number];

/**
 * `SOURCE:TARGET[:ro]`, podman's short form of a bind mount.
 *
 * @throws ImgcredError USAGE
 */
export function parseVolume(text: string): Mount {
  const fail = (problem: string) =>
    new ImgcredError('USAGE', `--volume ${text}: ${problem}`, {
      hint: 'for example --volume /srv/data:/data:ro; --mount says more',
    });
  const [source = '', target = '', options = 'rw', ...more] = text.split(':');
  if (more.length > 0 || source === '' || target === '')
    throw fail('must be SOURCE:TARGET or SOURCE:TARGET:ro');
  if (!/^[./]/.test(source))
    throw fail('there are no named volumes: the source must be a path, beginning with / or .');
  if (!target.startsWith('/')) throw fail('the target must be an absolute path');
  if (options !== 'ro' && options !== 'rw') throw fail(`there is no option '${options}', only ro and rw`);
  return { type: 'bind', source: resolve(source), target, ...(options === 'ro' ? { read_only: true } : {}) };
}

/**
 * `type=bind,source=DIR,target=DIR[,ro]` or `type=tmpfs,target=DIR[,size=SIZE][,tmpfs-mode=MODE][,ro]`, with podman's
 * other names for the same (`src`, `dst`, `destination`, `readonly`, `tmpfs-size`).
 *
 * @throws ImgcredError USAGE
 */
export function parseMount(text: string): Mount {
  const fields = new Map(
    text.split(',').map((part): [string, string] => {
      const equals = part.indexOf('=');
      return equals < 0 ? [part, 'true'] : [part.slice(0, equals), part.slice(equals + 1)];
    }),
  );
  const take = (...names: string[]) => {
    let value: string | undefined;
    for (const name of names) {
      value ??= fields.get(name);
      fields.delete(name);
    }
    return value;
  };
  const fail = (problem: string) =>
    new ImgcredError('USAGE', `--mount ${text}: ${problem}`, {
      hint: 'write type=bind,source=DIR,target=DIR[,ro] or type=tmpfs,target=DIR[,size=SIZE][,tmpfs-mode=MODE][,ro]',
    });
  const readOnly = () => {
    const value = take('ro', 'readonly') ?? 'false';
    if (value !== 'true' && value !== 'false') throw fail(`ro is true or false, not '${value}'`);
    return value === 'true' ? { read_only: true } : {};
  };
  const type = take('type') ?? 'bind';
  const target = take('target', 'destination', 'dst');
  if (target === undefined) throw fail('target is missing');
  if (!target.startsWith('/')) throw fail('target must be an absolute path');
  let mount: Mount;
  if (type === 'bind') {
    const source = take('source', 'src');
    if (source === undefined || source === '') throw fail('source is missing');
    mount = { type: 'bind', source: resolve(source), target, ...readOnly() };
  } else if (type === 'tmpfs') {
    const size = take('size', 'tmpfs-size');
    const bytes = size === undefined ? undefined : SIZE.parse(size);
    if (size !== undefined && bytes === undefined)
      throw fail(`size must ${SIZE.must}, such as ${SIZE.example}`);
    const mode = take('tmpfs-mode');
    if (mode !== undefined && !/^[0-7]{1,4}$/.test(mode)) throw fail('tmpfs-mode must be octal, as in chmod');
    mount = {
      type: 'tmpfs',
      target,
      ...(bytes === undefined ? {} : { size_bytes: bytes }),
      ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
      ...readOnly(),
    };
  } else throw fail(`there is no mount type '${type}'`);
  const unknown = [...fields.keys()][0];
  if (unknown !== undefined) throw fail(`there is no field '${unknown}'`);
  return mount;
}
