import { describe, expect, test } from 'bun:test';
import {
  CredentialError,
  createProviderFromCredentials,
  createSecretName,
  detectCredentialType,
  registryType,
} from '../../../src/credentials/index.ts';
import vectors from '../../vectors/references-and-credentials.json' with { type: 'json' };

describe('registry vectors', () => {
  for (const vector of vectors.registries) {
    test(`${vector.registry} is ${vector.type}`, () => {
      const { dualStack: _, ...found } = registryType(vector.registry);
      const { registry: __, lookalike: ___, ...expected } = { lookalike: false, ...vector };
      expect<unknown>(found).toEqual(expected);
    });
  }
});

describe('credential vectors', () => {
  for (const vector of vectors.credentials) {
    const credentials: Record<string, string> = {};
    for (const [key, value] of Object.entries(vector.credentials)) {
      if (value !== undefined) credentials[key] = value;
    }
    const what = `${Object.keys(credentials).join(', ') || 'nothing'} at ${vector.registry}`;
    if (vector.type === null) {
      test(`${what} is refused: ${vector.error}`, () => {
        expect(() => detectCredentialType(vector.registry, credentials)).toThrow(CredentialError);
        expect(() => createProviderFromCredentials(vector.registry, credentials)).toThrow(CredentialError);
        const missing = /^(\w+) is missing$/.exec(vector.error ?? '')?.[1];
        if (missing !== undefined) {
          expect(() => detectCredentialType(vector.registry, credentials)).toThrow(missing);
        }
      });
      continue;
    }
    test(`${what} is ${vector.type}`, async () => {
      expect<string>(detectCredentialType(vector.registry, credentials)).toBe(vector.type);
      const provider = createProviderFromCredentials(vector.registry, credentials);
      expect<string>(provider.type).toBe(vector.type);
      expect(provider.registry).toBe(vector.registry);
      if (vector.login === undefined) return;
      const login = await provider.login();
      const found = login.kind === 'basic' ? [login.username, login.password.reveal()] : login.kind;
      expect<unknown>(found).toEqual(vector.login);
      expect(provider.refused(login)).toBe(false);
    });
  }
});

describe('secret names', () => {
  test.each(vectors.secret_names)('$registry is kept as $name', ({ registry, name }) => {
    expect(createSecretName(registry)).toBe(name);
  });

  test('hold nothing but lower-case letters, digits and hyphens', () => {
    expect(createSecretName('[::1]:5000')).toBe('oci-registry----1--5000');
    expect(createSecretName('a.b/c_d')).toBe('oci-registry-a-b-c-d');
  });
});
