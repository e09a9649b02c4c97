import { ImgcredError } from '../../errors/index.ts';
import type { Command } from '../command.ts';
import { CONNECTION_OPTIONS, configOf, ROLE_OPTIONS, stderrLogger } from '../context.ts';
import { optionValue, seconds } from '../option-values.ts';
import { enterRootless } from '../rootless.ts';
import { startServer } from '../server.ts';

const LEASE = seconds(0.5, 3600, '30');
const LINGER = seconds(0, 86_400, '60');

export const serve: Command = {
  words: ['serve'],
  summary: 'Run the gateway, the scheduler, a worker, or all of them',
  usage: '[--role=all|gateway,scheduler|worker]',
  description:
    'Listens on a Unix socket in the data directory (no token needed) and on --listen (with a token; the first start\n' +
    'writes an admin token to DATA_DIR/admin-token). A worker on another machine needs --gateway and --token-file; what\n' +
    'concerns its machine (imgcred cache, mount ls, umount, image pins) it answers on a socket in its data directory.',
  examples: [
    'imgcred serve',
    'imgcred serve --role=gateway,scheduler --listen 0.0.0.0:7480',
    'imgcred serve --role=worker --gateway https://imgcred.example.com --token-file /etc/imgcred/worker.token',
  ],
  options: {
    role: { value: 'ROLES', help: 'all, or a list of gateway, scheduler, worker (all)' },
    listen: { value: 'HOST:PORT', help: 'address of the HTTP API, or none (127.0.0.1:7480)' },
    'metrics-listen': {
      value: 'HOST:PORT',
      help: 'address of GET /metrics for Prometheus, without a token (none)',
    },
    'tls-cert': { value: 'FILE', help: 'certificate chain for --listen, PEM: it then speaks https' },
    'tls-key': { value: 'FILE', help: 'its key, PEM' },
    gateway: { value: 'URL', help: 'for a worker alone: where its scheduler is' },
    'gateway-ca': { value: 'FILE', help: 'certificate authority of --gateway, PEM' },
    'token-file': { value: 'FILE', help: 'for a worker alone: file with its token' },
    'worker-name': { value: 'NAME', help: 'name of the worker (the host’s)' },
    'worker-label': { value: 'NAME=VALUE', multiple: true, help: 'label that requests may ask for' },
    lease: { value: 'SECONDS', takes: LEASE, help: 'silence after which a worker is given up (30)' },
    'queue-limit': { value: 'N', help: 'containers of a workspace that wait and run at once (10000)' },
    'mount-linger': {
      value: 'SECONDS',
      takes: LINGER,
      help: 'how long an image stays mounted after its last container, for the next (60)',
    },
    slots: { value: 'N', help: 'containers that the worker runs at once (64)' },
    'data-dir': CONNECTION_OPTIONS['data-dir'],
    'log-level': { value: 'LEVEL', help: 'debug, info, warn or error (info)' },
    ...ROLE_OPTIONS,
  },
  positionals: [0, 0],
  async run(invocation) {
    const lease = optionValue(invocation, 'lease', LEASE);
    const linger = optionValue(invocation, 'mount-linger', LINGER);
    const labels = invocation.texts('worker-label');
    const config = configOf(invocation, {
      roles: invocation.text('role'),
      listen: invocation.text('listen'),
      metrics_listen: invocation.text('metrics-listen'),
      gateway: invocation.text('gateway'),
      gateway_ca: invocation.text('gateway-ca'),
      token_file: invocation.text('token-file'),
      worker_name: invocation.text('worker-name'),
      worker_labels: labels.length === 0 ? undefined : labels,
      lease_ms: lease === undefined ? undefined : lease * 1000,
      mount_linger_ms: linger === undefined ? undefined : linger * 1000,
      queue_limit: invocation.text('queue-limit'),
      tls_cert: invocation.text('tls-cert'),
      tls_key: invocation.text('tls-key'),
      slots: invocation.text('slots'),
    });
    const logger = stderrLogger(config);
    await enterRootless(config);
    const asked = Promise.withResolvers<string>();
    const stopping = new AbortController();
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.once(signal, () => {
        asked.resolve(signal);
        // For a worker that still waits for its scheduler.
        stopping.abort(new ImgcredError('CANCELLED', 'stopped before it was ready'));
      });
    }
    const server = await startServer(config, logger, { signal: stopping.signal });
    logger.info('ready', {
      roles: config.roles,
      listen: server.address ?? 'none',
      socket: server.socket,
      ...(server.metrics === undefined ? {} : { metrics: server.metrics }),
      data_dir: config.data_dir,
    });
    logger.info('stopping', { signal: await asked.promise });
    await server.stop();
    return 0;
  },
};
