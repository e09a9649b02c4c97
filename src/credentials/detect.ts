import { type CredentialMap, canonicalCredentials } from './credential-map.ts';
import { CredentialError } from './error.ts';
import type { LoginPlan } from './login-plan.ts';
import { LOGIN_SCHEMES, type LoginScheme, type SchemeInput } from './login-scheme.ts';
import type { CredentialType } from './provider.ts';
import { registryType } from './registry-type.ts';

/**
 * The type of login that these credentials give at this registry: `public` when there are none at all.
 *
 * @throws CredentialError `INVALID_CREDENTIALS` when they are incomplete (the message names the missing key) or
 *   for another provider's registry: they never fall back to anonymous access
 */
export function detectCredentialType(registry: string, credentials: CredentialMap): CredentialType {
  return planLogin(registry, credentials).type;
}

/** Which way to log in these credentials give at this registry, checked but without any I/O. */
export function planLogin(
  registry: string,
  credentials: CredentialMap,
): { readonly type: CredentialType; readonly plan: LoginPlan } {
  if (Object.keys(credentials).length === 0) return { type: 'public', plan: { kind: 'anonymous' } };
  const input = {
    registry,
    kind: registryType(registry).type,
    values: canonicalCredentials(registry, credentials),
  };
  const meant = LOGIN_SCHEMES.filter((scheme) => scheme.marks.some((key) => input.values.has(key)));
  const suitable = meant.filter((scheme) => scheme.suits(input));
  const scheme = suitable.find((candidate) => missingKey(candidate, input) === undefined);
  if (scheme === undefined) throw explainRefusal(input, meant, suitable);
  const plan = scheme.plan((...keys) => firstOf(keys, input), registry);
  if (plan.kind === 'basic' && plan.username.includes(':')) {
    throw new CredentialError(
      'INVALID_CREDENTIALS',
      registry,
      'a user name cannot contain a colon (RFC 7617)',
    );
  }
  return { type: scheme.type, plan };
}

function firstOf(keys: readonly string[], { values }: SchemeInput): string | undefined {
  const key = keys.find((candidate) => values.has(candidate));
  return key === undefined ? undefined : values.get(key);
}

/** The key that is missing; where the other half of a pair is there, the one that belongs to it. */
function missingKey(scheme: LoginScheme, input: SchemeInput): string | undefined {
  const missing = scheme.needs.find((group) => firstOf(group, input) === undefined);
  if (missing === undefined) return undefined;
  const given = scheme.needs.flat().find((key) => input.values.has(key));
  const prefix = given?.replace(/(?:USERNAME|PASSWORD)$/, '');
  return missing.find((key) => key.replace(/(?:USERNAME|PASSWORD)$/, '') === prefix) ?? missing[0];
}

function explainRefusal(
  input: SchemeInput,
  meant: readonly LoginScheme[],
  suitable: readonly LoginScheme[],
): CredentialError {
  const { registry, kind } = input;
  const hint = `it takes ${acceptedKeys(input)}`;
  const [incomplete] = suitable;
  const [foreign] = meant.filter((scheme) => !suitable.includes(scheme));
  // A bare user name goes with anything: beside another provider's token, that one is the mistake.
  const onlyUserName = incomplete?.where === 'any registry' && foreign !== undefined;
  if (incomplete !== undefined && !onlyUserName) {
    return new CredentialError(
      'INVALID_CREDENTIALS',
      registry,
      `${missingKey(incomplete, input)} is missing`,
      { hint },
    );
  }
  if (foreign !== undefined) {
    const reason = `${foreign.what} given for a registry that is not ${foreign.where}`;
    return new CredentialError('INVALID_CREDENTIALS', registry, reason, {
      hint: `one provider's credentials are never sent to another host; ${hint}`,
    });
  }
  const reason = `no credential that this registry takes (${kind})`;
  return new CredentialError('INVALID_CREDENTIALS', registry, reason, { hint });
}

function acceptedKeys(input: SchemeInput): string {
  const ways = LOGIN_SCHEMES.filter((scheme) => scheme.suits(input)).map((scheme) =>
    scheme.needs.map((group) => group[0]).join(' and '),
  );
  return [...new Set(ways)].join('; or ');
}
