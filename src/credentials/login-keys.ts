import { LOGIN_SCHEMES } from './login-scheme.ts';
import { registryType } from './registry-type.ts';

/**
 * The keys that a login of some type needs at a registry, for a message that asks for it anew:
 * `['REGISTRY_USERNAME', 'REGISTRY_PASSWORD']`. The registry's own names where it has some.
 *
 * @param wanted a type of login, as a provider has it
 */
export function loginKeys(registry: string, wanted = 'basic'): readonly string[] {
  const { type: kind } = registryType(registry);
  const here = LOGIN_SCHEMES.filter((scheme) => scheme.suits({ registry, kind, values: new Map() }));
  // Each registry that has none of that type takes some other one.
  const suitable = here.some(({ type }) => type === wanted)
    ? here.filter(({ type }) => type === wanted)
    : here;
  // What is for some generic registries only may not be what this one is.
  const scheme = kind === 'generic' ? suitable.at(-1) : suitable[0];
  return (scheme?.needs ?? []).flatMap(([key]) => (key === undefined ? [] : [key]));
}
