export type { AuditEvent, AuditFilter, AuditRepository, AuditRow } from './audit-log.ts';
export { backUp } from './background-backup.ts';
export {
  type BackupFile,
  type BackupOrder,
  type BackupSummary,
  readBackup,
  restoreBackup,
  writeBackup,
} from './backup.ts';
export type { ContainerEvent, ContainerEventRepository } from './container-events.ts';
export {
  CONTAINER_STATES,
  type ContainerRow,
  type ContainerState,
  type FinalState,
  isFinal,
  RESTART_POLICIES,
  type RestartPolicy,
  TRANSITIONS,
} from './container-row.ts';
export type { ContainerFilter, ContainerRepository, NewContainer } from './containers.ts';
export { DatabaseError } from './errors.ts';
export { createPrivateFile, prepareDataDirectory } from './files.ts';
export {
  type ContainerId,
  createIdentifierSource,
  type ImageId,
  isId,
  parseId,
  type SecretId,
  type TokenId,
  type WorkerId,
  type WorkspaceId,
} from './identifiers.ts';
export type { ImageCredentialSecret, ImageRepository, ImageRow, NewImage, StoredLayer } from './images.ts';
export type { KekRepository, KekRow, KekState, WrappedKeyRow } from './keks.ts';
export { type DataDirectoryLock, lockDataDirectory } from './lock.ts';
export { MIGRATIONS, type Migration } from './migrations.ts';
export type { MountedImageRepository } from './mounted-images.ts';
export {
  DATABASE_FILE,
  type Database,
  type DatabaseOptions,
  openDatabase,
  type WorkspaceDatabase,
} from './open.ts';
export type {
  CredentialInUse,
  Holder,
  NamedAttempt,
  QueueRepository,
  TransitionDetails,
} from './queue.ts';
export type { JsonObject, JsonValue } from './rows.ts';
export type {
  EncryptedVersion,
  SealedSecretRow,
  SecretKind,
  SecretRepository,
  SecretRow,
  SecretVersionRow,
} from './secrets.ts';
export { type ForWorker, ROLES, type Role, type TokenRepository, type TokenRow } from './tokens.ts';
export type { TracedImage, TraceRepository, TraceRow } from './traces.ts';
export type { NewWorker, WorkerRepository, WorkerRow } from './workers.ts';
export type { WorkspaceRepository, WorkspaceRow, WrappedKey } from './workspaces.ts';
