import { existsSync, readdirSync, rmSync } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { dataLayout } from '../../config/index.ts';
import type { Database } from '../../database/index.ts';
import { ImgcredError } from '../../errors/index.ts';
import { createBackup, type Secrets } from '../../secrets/index.ts';
import { type Route, readBody, requireUnbound } from '../routing.ts';

/** How many images' indexes are not in the backup because they are not on disk. */
export const MISSING_INDEXES_HEADER = 'imgcred-missing-indexes';
const PREFIX = 'backup-';
const SUFFIX = '.partial';
const PIECE_BYTES = 1 << 20;

/** The backup, as a stream: the server writes no file but one that is gone before the first byte is sent. */
export function backupRoutes(database: Database, secrets: Secrets): Route[] {
  const layout = dataLayout(dirname(database.path));
  // What a crash has left of an earlier one.
  for (const name of readdirSync(layout.root)) {
    if (name.startsWith(PREFIX) && name.includes(SUFFIX)) rmSync(join(layout.root, name), { force: true });
  }
  return [
    {
      method: 'post',
      path: '/v1/backup',
      role: 'admin',
      summary: 'A backup of the whole server: database and image indexes, consistent while requests run',
      async handle(c, { identity }) {
        requireUnbound(identity);
        const shape = z.strictObject({ include_master_key: z.boolean().default(false) });
        const { include_master_key } = await readBody(c, shape);
        if (include_master_key && !c.env.local) {
          throw new ImgcredError('FORBIDDEN', 'the master key is given over the server’s own socket only', {
            hint: 'run imgcred backup --include-master-key on the server’s machine',
          });
        }
        // An image whose index was lost must not keep the secrets from being saved.
        const digests = [...database.indexDigestsInUse()].sort();
        const present = digests.filter((digest) => existsSync(join(layout.indexes, digest)));
        const path = join(layout.root, `${PREFIX}${crypto.randomUUID()}${SUFFIX}`);
        let file: FileHandle;
        try {
          await createBackup(database, secrets, path, identity, {
            includeMasterKey: include_master_key,
            files: present.map((digest) => ({
              name: `indexes/${digest}`,
              path: join(layout.indexes, digest),
            })),
          });
          file = await open(path, 'r');
        } finally {
          await rm(path, { force: true });
        }
        return new Response(bytesOf(file), {
          headers: {
            'content-type': 'application/octet-stream',
            'cache-control': 'no-store',
            [MISSING_INDEXES_HEADER]: String(digests.length - present.length),
          },
        });
      },
    },
  ];
}

function bytesOf(file: FileHandle): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const { buffer, bytesRead } = await file.read(new Uint8Array(PIECE_BYTES));
      if (bytesRead > 0) return controller.enqueue(buffer.subarray(0, bytesRead));
      await file.close();
      controller.close();
    },
    cancel: () => file.close(),
  });
}
