import type { ContainerOptions, ImageProcessConfig } from './container-options.ts';
import { ContainerInputError } from './errors.ts';

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The process's environment as `NAME=value`, each name once: our defaults, then the image's, then what was
 * given. HOSTNAME and HOME are set where nobody else set them; an entry of the image without `=` is an empty
 * variable.
 */
export function environment(
  image: ImageProcessConfig,
  options: ContainerOptions,
  facts: { readonly hostname: string; readonly home: string },
): string[] {
  const variables = new Map<string, string>([
    ['PATH', DEFAULT_PATH],
    ['TERM', 'xterm'],
    ['container', 'imgcred'],
    ['HOSTNAME', facts.hostname],
    ['HOME', facts.home],
  ]);
  for (const entry of image.Env ?? []) {
    const equals = entry.indexOf('=');
    const name = equals === -1 ? entry : entry.slice(0, equals);
    if (name !== '') variables.set(name, equals === -1 ? '' : entry.slice(equals + 1));
  }
  for (const [name, value] of Object.entries(options.env ?? {})) {
    if (name === '' || name.includes('=') || name.includes('\0') || value.includes('\0')) {
      throw new ContainerInputError(`'${printable(name)}' can't be an environment variable`, {
        hint: "names hold no '=' and are not empty; neither name nor value holds a NUL byte",
      });
    }
    variables.set(name, value);
  }
  return [...variables].map(([name, value]) => `${name}=${value}`);
}

function printable(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, 64);
}
