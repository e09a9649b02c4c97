import { z } from 'zod';
import type { ContainerEvent, WorkspaceDatabase } from '../../database/index.ts';
import { ANY_CONTAINER_SIGNAL, type ChangeSignals } from '../../protocol/index.ts';
import { queryFlag, type Route, readQuery } from '../routing.ts';
import { ndjson } from '../streams.ts';
import { iso } from '../views.ts';

// How long a follower sleeps at most: what a scheduler in another process signals may get lost with the link to it.
const POLL_MS = 500;
const AT_ONCE = 256;

/** What becomes of a workspace's containers, as it happens. */
export function eventRoutes(signals: ChangeSignals): Route[] {
  return [
    {
      method: 'get',
      path: '/v1/events',
      role: 'runner',
      summary: 'Changes of containers as application/x-ndjson: after `since`, and with follow as they happen',
      handle(c, { workspace }) {
        const query = readQuery(
          c,
          z.object({
            since: z.coerce.number().int().min(0).optional(),
            follow: queryFlag,
            container: z.string().min(1).optional(),
          }),
        );
        const { signal } = c.req.raw;
        const container =
          query.container === undefined ? undefined : workspace.containers.get(query.container).id;
        // Who follows without a number wants what happens from now on; who does not, what there is.
        const since = query.since ?? (query.follow ? workspace.events.last() : 0);
        const more = query.follow
          ? () => signals.wait([ANY_CONTAINER_SIGNAL], POLL_MS, signal).then(() => !signal.aborted)
          : async () => false;
        return ndjson(eventLines(workspace, { since, container, gap: query.since !== undefined, more }));
      },
    },
  ];
}

interface EventQuery {
  readonly since: number;
  readonly container: ContainerEvent['containerId'] | undefined;
  /** Whether to say that what was asked for is not kept any more. */
  readonly gap: boolean;
  /** Called at the end of what there is: whether to look again. */
  readonly more: () => Promise<boolean>;
}

async function* eventLines(workspace: WorkspaceDatabase, query: EventQuery) {
  let { since } = query;
  if (query.gap && workspace.events.lostAfter(since)) yield { kind: 'gap', sequence: since };
  // A first line at once: who follows knows from where on nothing is missed.
  yield { kind: 'position', sequence: since };
  for (;;) {
    const events = workspace.events.after(since, AT_ONCE, query.container);
    for (const event of events) {
      since = event.sequence;
      yield eventView(event);
    }
    if (events.length < AT_ONCE && !(await query.more())) return;
  }
}

function eventView(event: ContainerEvent) {
  return {
    kind: 'container',
    sequence: event.sequence,
    time: iso(event.at),
    container_id: event.containerId,
    name: event.name ?? null,
    image_reference: event.imageReference,
    state: event.state,
    attempt: event.attempt,
    worker_id: event.workerId ?? null,
    exit_code: event.exitCode ?? null,
    reason: event.reason ?? null,
  };
}
