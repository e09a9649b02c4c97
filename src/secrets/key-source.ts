import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The key file's name in the data directory. */
export const MASTER_KEY_FILE = 'master-key';
const SYSTEMD_CREDENTIAL = 'imgcred-master-key';

/** Where the master keys come from. */
export interface KeySource {
  readonly path: string;
  readonly origin: 'option' | 'systemd' | 'environment' | 'data directory';
  /** Whether imgcred makes and changes the file by itself. */
  readonly managed: boolean;
  /** Whether the file's directory guards it, so that a group bit says nothing (systemd gives access by ACL). */
  readonly groupMayRead: boolean;
}

export interface KeySourceOptions {
  /** `--master-key-file` */
  readonly masterKeyFile?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * Chooses the source: the option, then systemd's `$CREDENTIALS_DIRECTORY/imgcred-master-key` if it is there,
 * then `IMGCRED_MASTER_KEY_FILE`, else a file of our own in the data directory.
 *
 * @see systemd.exec(5), LoadCredential=
 */
export function findKeySource(dataDirectory: string, options: KeySourceOptions = {}): KeySource {
  const env = options.env ?? process.env;
  if (options.masterKeyFile !== undefined) {
    return { path: options.masterKeyFile, origin: 'option', managed: false, groupMayRead: false };
  }
  if (env.CREDENTIALS_DIRECTORY) {
    const path = join(env.CREDENTIALS_DIRECTORY, SYSTEMD_CREDENTIAL);
    if (existsSync(path)) return { path, origin: 'systemd', managed: false, groupMayRead: true };
  }
  if (env.IMGCRED_MASTER_KEY_FILE) {
    return { path: env.IMGCRED_MASTER_KEY_FILE, origin: 'environment', managed: false, groupMayRead: false };
  }
  return {
    path: join(dataDirectory, MASTER_KEY_FILE),
    origin: 'data directory',
    managed: true,
    groupMayRead: false,
  };
}
