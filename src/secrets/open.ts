import type { Database } from '../database/index.ts';
import { ensureAdminToken } from './admin-token.ts';
import { Administration } from './administration.ts';
import { AuditLog } from './audit.ts';
import { ImageCredentialSecrets } from './image-credentials.ts';
import { findKeySource, type KeySourceOptions } from './key-source.ts';
import { Keyring } from './keyring.ts';
import { SecretStore, type SecretStoreOptions } from './secret-store.ts';
import { TokenStore } from './token-store.ts';
import { systemKey, WorkspaceKeys } from './workspace-keys.ts';

/** All that stands on the master key. */
export interface Secrets {
  /** What changes keys and workspaces, and is audited. */
  readonly administration: Administration;
  readonly keyring: Keyring;
  readonly workspaces: WorkspaceKeys;
  readonly audit: AuditLog;
  readonly store: SecretStore;
  readonly tokens: TokenStore;
  /** `createCredentialSecretIfNeeded` */
  readonly imageCredentials: ImageCredentialSecrets;
  /** Where the first admin token was written, if that was just now. */
  readonly adminTokenFile: string | undefined;
}

/**
 * Opens the keys and secrets of a data directory that this process has locked; makes the master key and the first
 * admin token at the first start.
 *
 * @throws SecretError MASTER_KEY when it is missing, refused, or not the one that the data was written with.
 */
export async function openSecrets(
  database: Database,
  dataDirectory: string,
  options: KeySourceOptions & SecretStoreOptions & { readonly now?: () => number } = {},
): Promise<Secrets> {
  const keyring = await Keyring.open(database, findKeySource(dataDirectory, options), options.random);
  const workspaces = new WorkspaceKeys(database, keyring);
  const audit = new AuditLog(database, await systemKey(database, keyring, 'audit', 'imgcred/1 audit chain'));
  const store = new SecretStore(database, workspaces, audit, options);
  const tokenSealKey = await systemKey(database, keyring, 'audit', 'imgcred/1 token seal');
  const tokens = new TokenStore(database, audit, tokenSealKey, options);
  const imageCredentials = new ImageCredentialSecrets(store);
  const adminTokenFile = ensureAdminToken(database, tokens, dataDirectory);
  const administration = new Administration(keyring, workspaces, audit);
  return { administration, keyring, workspaces, audit, store, tokens, imageCredentials, adminTokenFile };
}
