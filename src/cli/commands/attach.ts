import { z } from 'zod';
import { containerShape } from '../api-shapes.ts';
import { attach } from '../attach-client.ts';
import { ATTACH_OPTIONS, connectionLost, detachKeysOf, signalsPassOn } from '../attach-options.ts';
import { type Command, OWN_FAILURE } from '../command.ts';
import { CONNECTION_OPTIONS, connect } from '../context.ts';
import { SignalProxy } from '../signal-proxy.ts';

const attachable = containerShape.extend({
  overrides: z.looseObject({ terminal: z.boolean().optional(), interactive: z.boolean().optional() }),
});

export const attachCommand: Command = {
  words: ['attach'],
  summary: 'Join this terminal to a running container',
  usage: 'CONTAINER',
  description:
    'Shows what the container writes from now on; what it wrote before is in `imgcred container logs`. The input goes\n' +
    'to a container that was run with -i. Exits with the container’s own code. ctrl-p ctrl-q leaves it running.',
  examples: ['imgcred attach web', 'imgcred attach --no-stdin web'],
  options: {
    'no-stdin': { help: 'only look' },
    ...ATTACH_OPTIONS,
    ...CONNECTION_OPTIONS,
  },
  positionals: [1, 1],
  ownFailure: OWN_FAILURE,
  async run(invocation) {
    const detachKeys = detachKeysOf(invocation);
    const passOn = signalsPassOn(invocation);
    await using connection = await connect(invocation, { worker: 'now' });
    const { client } = connection;
    const named = `/v1/containers/${encodeURIComponent(invocation.positionals[0] ?? '')}`;
    const { id, overrides } = await client.json(attachable, 'GET', named);
    const terminal = overrides.terminal === true;
    const input = overrides.interactive === true && !invocation.flag('no-stdin');
    using _ = passOn ? new SignalProxy(client, id, !terminal) : undefined;
    const end = await attach(client, { path: `/v1/containers/${id}/attach`, input, terminal, detachKeys });
    switch (end.kind) {
      case 'exit':
        return end.exitCode;
      case 'detached':
        process.stderr.write(`\r\nleft ${id}\n`);
        return 0;
      case 'failed':
        throw end.error;
      case 'lost':
        throw connectionLost(id);
    }
  },
};
