import { type ContainerShape, containerPath, containerShape } from './api-shapes.ts';
import type { Connection } from './context.ts';

const LOOK_EVERY_MS = 50;

/**
 * Sees a container to its start on a server of our own, which ends with us; says why it has to wait, where it has.
 *
 * @returns the container where it could not be started
 */
export async function seeToStart(connection: Connection, id: string): Promise<ContainerShape | undefined> {
  const look = () => connection.client.json(containerShape, 'GET', containerPath(id));
  let container = await look();
  while (['pending', 'assigned', 'preparing'].includes(container.state)) {
    if (typeof container.waiting_reason === 'string') {
      process.stderr.write(`imgcred: ${id} waits: ${container.waiting_reason}\n`);
      return undefined;
    }
    await Bun.sleep(LOOK_EVERY_MS);
    container = await look();
  }
  if (container.state === 'running' && container.restart !== 'no') {
    process.stderr.write(
      `imgcred: no server runs on this data directory: staying to start ${id} again when it has ended\n`,
    );
    return undefined;
  }
  // It is said to run just before it is started.
  await connection.idle();
  container = await look();
  return container.state === 'failed' ? container : undefined;
}
