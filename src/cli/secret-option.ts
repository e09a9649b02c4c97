import { ImgcredError } from '../errors/index.ts';
import type { ContainerSecretUse } from '../protocol/index.ts';

/**
 * `NAME[,type=mount|env][,target=TARGET][,mode=OCTAL][,uid=N][,gid=N]`, as podman.
 *
 * @throws ImgcredError USAGE
 */
export function parseSecretUse(text: string): ContainerSecretUse {
  const fail = (problem: string) =>
    new ImgcredError('USAGE', `--secret ${text}: ${problem}`, {
      hint: 'write NAME[,target=PATH][,mode=0400][,uid=N][,gid=N] or NAME,type=env[,target=VARIABLE]',
    });
  const [name = '', ...rest] = text.split(',');
  if (name === '' || name.includes('=')) throw fail("the secret's name comes first");
  const fields = new Map<string, string>();
  for (const field of rest) {
    const equals = field.indexOf('=');
    if (equals <= 0) throw fail(`'${field}' is not KEY=VALUE`);
    fields.set(field.slice(0, equals), field.slice(equals + 1));
  }
  const take = (key: string) => {
    const value = fields.get(key);
    fields.delete(key);
    return value;
  };
  const number = (key: string, base: 8 | 10) => {
    const value = take(key);
    if (value === undefined) return {};
    if (!(base === 8 ? /^[0-7]{1,5}$/ : /^\d{1,10}$/).test(value)) {
      throw fail(`${key} must be ${base === 8 ? 'an octal number' : 'a number'}`);
    }
    return { [key]: Number.parseInt(value, base) };
  };
  const type = take('type') ?? 'mount';
  const target = take('target');
  const where = target === undefined ? {} : { target };
  let use: ContainerSecretUse;
  if (type === 'env') use = { type: 'env', name, ...where };
  else if (type === 'mount' || type === 'file') {
    use = { type: 'file', name, ...where, ...number('mode', 8), ...number('uid', 10), ...number('gid', 10) };
  } else throw fail(`there is no type '${type}'`);
  const unknown = [...fields.keys()][0];
  if (unknown !== undefined) throw fail(`there is no field '${unknown}' for type ${type}`);
  return use;
}
