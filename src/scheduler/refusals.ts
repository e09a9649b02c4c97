import type { ContainerRow, Database } from '../database/index.ts';
import type { ContainerReport } from '../protocol/index.ts';
import { hintWith } from '../secrets/index.ts';

/**
 * The report of a run whose image's credential was refused, with the secret's name and the command that gives it a new
 * value: a worker knows neither.
 */
export function withRefusedSecret<R extends ContainerReport>(
  database: Database,
  { workspaceId, imageId }: ContainerRow,
  report: R,
): R {
  if (report.kind !== 'failed' || report.error.code !== 'CREDENTIALS_REFUSED' || imageId === undefined)
    return report;
  const { images, secrets } = database.workspace(workspaceId);
  const used = images.find(imageId)?.credential;
  const secret = used === undefined ? undefined : secrets.find(used.secretId);
  if (secret === undefined) return report;
  return { ...report, error: { ...report.error, hint: hintWith(report.error.hint, secret) } };
}
