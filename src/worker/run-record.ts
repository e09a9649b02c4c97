import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { replaceSync } from '../files/index.ts';
import { fetchReportSchema } from '../protocol/index.ts';

/**
 * What the next worker must know to take over a container: no credential, and nothing of the command. One of a newer
 * version may have written more, which is left out.
 */
const runRecordSchema = z.object({
  container_id: z.string(),
  attempt: z.int(),
  mount_id: z.string(),
  /** Which of the images that share the mount; records of older versions don't say. */
  image_id: z.string().optional(),
  first_log_number: z.int(),
  /** What the mount had fetched when this run began, bytes by cause. */
  fetched_before: z.record(z.string(), z.int()),
  /** How many requests it had made by then, by cause; records of older versions have but one number. */
  requests_before: z.record(z.string(), z.int()).catch({}),
  /** Reads of the mount that had failed, by class. */
  failures_before: z.record(z.string(), z.int()),
  /** Why the mount was not lazy until then, and the image's index; records of older versions say neither. */
  fallbacks_before: z.array(z.string()).optional(),
  index: fetchReportSchema.shape.index,
  timings_ms: z.record(z.string(), z.number()),
  /** What this machine could not do for the container, and nobody insisted on. */
  warnings: z.array(z.string()).optional(),
});
export type RunRecord = z.infer<typeof runRecordSchema>;

const pathOf = (directory: string, containerId: string) => join(directory, `${containerId}.json`);

/** Keeps a run's record below `directory`; replaced as a whole. */
export function writeRunRecord(directory: string, record: RunRecord): void {
  replaceSync(pathOf(directory, record.container_id), JSON.stringify(record));
}

export function removeRunRecord(directory: string, containerId: string): void {
  rmSync(pathOf(directory, containerId), { force: true });
}

/** The runs that an earlier worker began below `directory` and did not see through. */
export function findLeftRuns(directory: string): RunRecord[] {
  const records: RunRecord[] = [];
  for (const name of readdirSync(directory)) {
    if (!name.endsWith('.json')) continue;
    const parsed = runRecordSchema.safeParse(readJson(join(directory, name)));
    // A record that can't be read is as good as none: its container is cleaned up as one without.
    if (parsed.success) records.push(parsed.data);
    else rmSync(join(directory, name), { force: true });
  }
  return records;
}

/** Directories of containers below `directory` without a record: their worker died before anything was started. */
export function findOrphans(directory: string, records: readonly RunRecord[]): string[] {
  const known = new Set(records.map((record) => record.container_id));
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !known.has(entry.name))
    .map((entry) => join(directory, entry.name));
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}
