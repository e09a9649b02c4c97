import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MountView } from '../../../src/mounts/index.ts';
import { UserMounts } from '../../../src/worker/user-mounts.ts';

const VIEW: MountView = {
  mount_id: 'm1',
  mountpoint: '/home/demo/image',
  image_id: 'img_1',
  workspace_id: 'ws_1',
  request: {
    mount_id: 'm1',
    mountpoint: '/home/demo/image',
    index_path: '/index',
    workspace_id: 'ws_1',
    image: {
      id: 'img_1',
      reference: 'registry.example.com/app:1',
      registry: 'registry.example.com',
      repository: 'app',
      manifest_digest: `sha256:${'0'.repeat(64)}`,
      index_digest: '1'.repeat(64),
    },
  },
  uses: 1,
  driver: 'kernel',
  image_compressed_bytes: 1,
  stats: {
    bytes_fetched: 0,
    bytes_fetched_by_cause: {},
    requests: 0,
    requests_by_cause: {},
    fallbacks: [],
    failures: {},
    waiting_reads: 0,
    fetch_limit_reached: false,
  },
  start_recorded: false,
};

describe('the images of an ordinary user’s mounts', () => {
  let directory: string;
  let socket: string;
  let server: ReturnType<typeof serve> | undefined;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'imgcred-user-mounts-'));
    socket = join(directory, 'mounts.sock');
  });
  afterEach(async () => {
    await server?.stop(true);
    await rm(directory, { recursive: true, force: true });
  });

  function serve(mounts: () => Response | Promise<Response>) {
    return Bun.serve({
      unix: socket,
      fetch: (request) =>
        new URL(request.url).pathname === '/healthz'
          ? Response.json({ pid: process.pid, version: '1', mounts: 1 })
          : mounts(),
    });
  }

  const unreachable = { error: { code: 'SERVER_UNREACHABLE', message: 'the mount server is ending' } };

  test.each([
    ['changes hands', () => Response.json(unreachable, { status: 502 })],
    ['is at a standstill', () => new Promise<Response>(() => {})],
  ])('stay known while their server %s', async (_, answer) => {
    let mounts: () => Response | Promise<Response> = () => Response.json({ mounts: [VIEW] });
    server = serve(() => mounts());
    const mounted = new UserMounts(socket);
    expect(await mounted.images()).toEqual([{ image_id: 'img_1' }]);

    mounts = answer;

    expect(await mounted.images()).toEqual([{ image_id: 'img_1' }]);
  });

  test('are none once nobody serves them', async () => {
    server = serve(() => Response.json({ mounts: [VIEW] }));
    const mounted = new UserMounts(socket);
    expect(await mounted.images()).toEqual([{ image_id: 'img_1' }]);

    await server.stop(true);

    expect(await mounted.images()).toEqual([]);
  });
});
