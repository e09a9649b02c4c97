import type { Secret } from './secret.ts';

/** How a registry is logged in to, as the credential's keys and the registry's host decide. */
export type CredentialType = 'public' | 'aws' | 'gcp' | 'azure' | 'token' | 'basic';

/** What a provider gives to the registry client for one login. */
export type Login =
  | { readonly kind: 'anonymous' }
  /** Sent as HTTP basic to the registry, or to its token endpoint (RFC 7617). */
  | { readonly kind: 'basic'; readonly username: string; readonly password: Secret<string> }
  /** Sent as `Authorization: Bearer` to the registry itself. */
  | { readonly kind: 'bearer'; readonly token: Secret<string> }
  /** An OAuth2 refresh token, exchanged at the token endpoint by POST. */
  | { readonly kind: 'identity-token'; readonly token: Secret<string> };

/** Gives the login for one registry; remembers one that has to be fetched until shortly before it expires. */
export interface CredentialProvider {
  /** The registry's host (`ghcr.io`, `localhost:5000`); logins never go to another one. */
  readonly registry: string;
  readonly type: CredentialType;
  /** @throws CredentialError when the login can't be obtained (network, refused keys). */
  login(signal?: AbortSignal): Promise<Login>;
  /**
   * Says that the registry refused `login`. Returns whether the next `login()` may give another one (a fetched
   * token) — false for fixed ones, so that a refused password is never sent twice.
   */
  refused(login: Login): boolean;
}
