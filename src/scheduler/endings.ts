import type { ContainerRow, Holder, JsonObject, QueueRepository } from '../database/index.ts';
import type { ContainerReport } from '../protocol/index.ts';
import { restartDelay, wantsRestart } from './restart.ts';

/** What says how a container is: all but what is told of its image. */
type StateReport = Exclude<ContainerReport, { kind: 'touched' }>;
type Failure = Extract<ContainerReport, { kind: 'failed' }>['error'];

// What a restart can cure; asking for more of the image than is allowed, say, it can't.
const CURABLE: ReadonlySet<string> = new Set(['CONTAINER_FAILED', 'MOUNT_FAILED']);

/**
 * Writes down what a worker tells of a container: the next state, or a restart where the request asks for one.
 * Undefined: the request can't go there from where it is.
 */
export function applyReport(
  queue: QueueRepository,
  row: ContainerRow,
  holder: Holder,
  report: StateReport,
  now: number,
): ContainerRow | undefined {
  switch (report.kind) {
    case 'preparing':
    case 'running':
    case 'cancelled':
      return queue.transition(row.id, report.kind, holder);
    case 'fetching':
      return queue.noteFetch(row.id, holder, { ...report.fetch });
    case 'exited': {
      const fetchReport = report.fetch === undefined ? {} : { fetchReport: { ...report.fetch } };
      if (row.state === 'running' && wantsRestart(row, report.exit_code)) {
        const reason = `exited with ${report.exit_code}: started again`;
        return queue.transition(row.id, 'pending', holder, { ...fetchReport, ...restart(row, now), reason });
      }
      return queue.transition(row.id, 'exited', holder, {
        ...fetchReport,
        exitCode: report.exit_code,
        ...(report.reason === undefined ? {} : { reason: report.reason }),
      });
    }
    case 'failed': {
      const fetchReport = report.fetch === undefined ? {} : { fetchReport: { ...report.fetch } };
      if (row.state === 'running' && CURABLE.has(report.error.code) && wantsRestart(row, undefined)) {
        const reason = `${report.error.message}: started again`;
        return queue.transition(row.id, 'pending', holder, { ...fetchReport, ...restart(row, now), reason });
      }
      return queue.transition(row.id, 'failed', holder, {
        ...fetchReport,
        ...failure(report.error),
        exitCode: report.exit_code,
      });
    }
  }
}

/** Whether a report tells what is known already: an answer to it was lost, and it was sent again. */
export function isKnown(row: ContainerRow, report: StateReport): boolean {
  if (report.kind === 'preparing') return ['preparing', 'running', 'stopping'].includes(row.state);
  return row.state === report.kind;
}

/**
 * Ends what a worker had when it was lost, or queues it again: what never ran goes to another worker, what ran is
 * restarted where that is asked for.
 */
export function endLost(
  queue: QueueRepository,
  row: ContainerRow,
  message: string,
  now: number,
): ContainerRow | undefined {
  if (row.state === 'assigned' || row.state === 'preparing') return queue.transition(row.id, 'pending', row);
  if (row.state === 'running' && wantsRestart(row, undefined)) {
    return queue.transition(row.id, 'pending', row, {
      ...restart(row, now),
      reason: `${message}: started again`,
    });
  }
  const error = { code: 'CONTAINER_FAILED', message, hint: 'whether its command has ended is not known' };
  return queue.transition(row.id, 'failed', row, failure(error));
}

/** An error as a request's row keeps it. */
export function failure({ code, message, hint }: Failure): { error: JsonObject; reason: string } {
  return { error: { code, message, ...(hint === undefined ? {} : { hint }) }, reason: message };
}

function restart(row: ContainerRow, now: number) {
  return { notBefore: now + restartDelay(row), restart: true };
}
