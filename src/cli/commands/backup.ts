import { existsSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { formatBytes, prepareDataDirectory, ROLES } from '../../config/index.ts';
import { type BackupSummary, readBackup, restoreBackup } from '../../database/index.ts';
import { counted, ImgcredError, systemErrorCode } from '../../errors/index.ts';
import { MISSING_INDEXES_HEADER } from '../../gateway/index.ts';
import { findKeySource, MASTER_KEY_FILE } from '../../secrets/index.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, configOf, connect, ROLE_OPTIONS } from '../context.ts';
import { print, printJson } from '../output.ts';
import { lockRoles } from '../server.ts';

export const backup: Command = {
  words: ['backup'],
  summary: 'Write the database and the image indexes into one file, while requests run',
  usage: 'FILE [--include-master-key]',
  description:
    'The secrets in it are encrypted, and open only with the master key, which is left out unless it is asked for:\n' +
    'then the file alone opens everything. FILE must not exist; it is readable by its owner only.',
  examples: ['imgcred backup /backups/imgcred-$(date +%F)', 'imgcred backup --include-master-key /safe/all'],
  options: {
    'include-master-key': { help: 'also the master key (over the server’s own socket only)' },
    ...CONNECTION_OPTIONS,
    'master-key-file': ROLE_OPTIONS['master-key-file'],
  },
  positionals: [1, 1],
  async run(invocation) {
    const path = invocation.positionals[0] ?? '';
    const includeMasterKey = invocation.flag('include-master-key');
    const file = await createOwnFile(path);
    let summary: BackupSummary;
    let size = 0;
    let missing = 0;
    try {
      try {
        await using connection = await connect(invocation);
        const answer = await connection.client.fetch('POST', '/v1/backup', {
          include_master_key: includeMasterKey,
        });
        missing = Number(answer.headers.get(MISSING_INDEXES_HEADER) ?? 0);
        for await (const piece of answer.body ?? []) {
          await file.writeFile(piece);
          size += piece.length;
        }
        await file.sync();
      } finally {
        await file.close();
      }
      // A connection that broke leaves a part: only a whole one passes.
      summary = readBackup(path);
    } catch (thrown) {
      await rm(path, { force: true });
      throw thrown;
    }
    if (invocation.flag('json'))
      await printJson({ path, size, missing_indexes: missing, ...viewOf(summary) });
    else {
      const key = includeMasterKey
        ? 'it holds the master key: keep it as safe as the secrets themselves'
        : `keep the master key (${summary.masterKeyIds.join(', ')}) apart: without it the secrets can’t be read`;
      await print(
        `${path}: ${formatBytes(size)}, ${counted(summary.files.length, 'file')} beside the database; ${key}\n`,
      );
    }
    return 0;
  },
};

export const restore: Command = {
  words: ['restore'],
  summary: 'Make a data directory anew from a backup',
  usage: 'FILE',
  description:
    'No server may run on the data directory, and it must not hold a database yet. Put the master key file in place\n' +
    'before the server is started, unless the backup holds it.',
  examples: ['imgcred restore /backups/imgcred-2027-01-01 --data-dir /var/lib/imgcred'],
  options: {
    'data-dir': CONNECTION_OPTIONS['data-dir'],
    config: ROLE_OPTIONS.config,
    'master-key-file': ROLE_OPTIONS['master-key-file'],
    json: CONNECTION_OPTIONS.json,
  },
  positionals: [1, 1],
  async run(invocation) {
    const path = invocation.positionals[0] ?? '';
    const config = configOf(invocation);
    // Before anything is made: a wrong file leaves no trace.
    readBackup(path);
    prepareDataDirectory(config.data_dir);
    const lock = lockRoles(config.data_dir, ROLES);
    let summary: BackupSummary;
    try {
      summary = restoreBackup(path, config.data_dir);
    } finally {
      lock.release();
    }
    const key = findKeySource(config.data_dir, { masterKeyFile: config.master_key_file });
    const keyIsThere = existsSync(key.path);
    if (invocation.flag('json')) {
      await printJson({ data_dir: config.data_dir, master_key_present: keyIsThere, ...viewOf(summary) });
    } else {
      const made = new Date(summary.createdAt).toISOString();
      await print(`${config.data_dir} is restored to ${made}: ${counted(summary.files.length, 'file')}\n`);
    }
    if (!keyIsThere) {
      process.stderr.write(
        `imgcred: the master key is not in ${key.path}\n` +
          `  put the file that holds ${summary.masterKeyIds.join(', ')} there before you start the server\n`,
      );
    }
    return 0;
  },
};

function viewOf(summary: BackupSummary) {
  return {
    created_at: new Date(summary.createdAt).toISOString(),
    files: summary.files,
    master_key_ids: summary.masterKeyIds,
    includes_master_key: summary.files.some((file) => file.name === MASTER_KEY_FILE),
  };
}

async function createOwnFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx', 0o600);
  } catch (cause) {
    const code = systemErrorCode(cause) ?? 'unknown error';
    if (code === 'EEXIST') {
      throw new ImgcredError('CONFLICT', `${path} exists already`, {
        hint: 'choose another name, or move it away',
        cause,
      });
    }
    throw new ImgcredError('USAGE', `${path} can't be written (${code})`, {
      hint: 'name a file in a directory that you may write to',
      cause,
    });
  }
}
