export { ADMIN_TOKEN_FILE } from './admin-token.ts';
export type { Administration, KeyRotation } from './administration.ts';
export type { AuditLog, AuditVerdict } from './audit.ts';
export { type BackupOptions, createBackup } from './backup.ts';
export { SecretError } from './errors.ts';
export type { CredentialSecret, ImageCredentialSecrets, ImageCredentials } from './image-credentials.ts';
export { generateKeyLine } from './key-file.ts';
export { findKeySource, type KeySource, type KeySourceOptions, MASTER_KEY_FILE } from './key-source.ts';
export type { Keyring, MasterKeyStatus } from './keyring.ts';
export { openSecrets, type Secrets } from './open.ts';
export { MAX_VALUE_BYTES } from './secret-rules.ts';
export type {
  Actor,
  CredentialProof,
  DecryptedSecret,
  NewSecret,
  Proof,
  SecretStore,
  SecretUse,
} from './secret-store.ts';
export { isTokenShaped, TOKEN_PREFIX } from './token-format.ts';
export type { NewToken, TokenStore } from './token-store.ts';
export type { WorkspaceKeys } from './workspace-keys.ts';
