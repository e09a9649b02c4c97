import { ImgcredError } from '../../errors/index.ts';
import { type ExecRequest, execRequestSchema } from '../../protocol/index.ts';
import { containerShape } from '../api-shapes.ts';
import { type AttachEnd, type AttachOptions, attach } from '../attach-client.ts';
import { ATTACH_OPTIONS, CONNECTION_WITHOUT_W, connectionLost, detachKeysOf } from '../attach-options.ts';
import { type Command, CommandFailure, type Invocation, OWN_FAILURE } from '../command.ts';
import { EXEC_WORKDIR, USER } from '../container-values.ts';
import { connect } from '../context.ts';
import { readEnvironment } from '../environment-option.ts';
import { ANY } from '../option-values.ts';
import { terminalSize } from '../terminal.ts';

export const exec: Command = {
  words: ['exec'],
  summary: 'Run a second command in a running container',
  usage: 'CONTAINER [--] COMMAND [ARGUMENT…]',
  description:
    'The command gets the container’s environment, limits and user unless told otherwise. Exits with its code; 125 where\n' +
    'imgcred failed or the container does not run, 126 where the command can’t be executed, 127 where it does not exist.',
  examples: ['imgcred exec -it web -- /bin/sh', 'imgcred exec -e MODE=test -u nobody web -- /bin/id'],
  options: {
    interactive: { short: 'i', help: 'pass our standard input on' },
    tty: { short: 't', help: 'give it a terminal' },
    env: { value: 'KEY[=VALUE]', takes: ANY, short: 'e', multiple: true, help: 'environment variable' },
    'env-file': { value: 'FILE', multiple: true, help: 'file with KEY=VALUE lines' },
    user: {
      value: 'USER[:GROUP]',
      takes: USER,
      short: 'u',
      help: 'user name or number, resolved in the image',
    },
    workdir: { value: 'DIR', takes: EXEC_WORKDIR, short: 'w', help: 'working directory' },
    'detach-keys': ATTACH_OPTIONS['detach-keys'],
    ...CONNECTION_WITHOUT_W,
  },
  stopsAtFirstPositional: true,
  positionals: [1, 1],
  ownFailure: OWN_FAILURE,
  async run(invocation) {
    const detachKeys = detachKeysOf(invocation);
    const request = await requestOf(invocation);
    await using connection = await connect(invocation, { worker: 'now' });
    const { client } = connection;
    const named = `/v1/containers/${encodeURIComponent(invocation.positionals[0] ?? '')}`;
    const join = async (): Promise<Exclude<AttachEnd, { kind: 'lost' }>> => {
      const { id } = await client.json(containerShape, 'GET', named);
      const options: AttachOptions = {
        path: `/v1/containers/${id}/exec`,
        exec: request,
        input: request.interactive,
        terminal: request.terminal,
        detachKeys,
      };
      const end = await attach(client, options);
      if (end.kind === 'lost') throw connectionLost(id);
      return end;
    };
    const end = await join();
    if (end.kind === 'failed') throw new CommandFailure(end.error, end.exitCode ?? OWN_FAILURE);
    return end.kind === 'detached' ? 0 : end.exitCode;
  },
};

async function requestOf(invocation: Invocation): Promise<ExecRequest> {
  const size = invocation.flag('tty') ? terminalSize() : undefined;
  const user = invocation.text('user');
  const workdir = invocation.text('workdir');
  const parsed = execRequestSchema.safeParse({
    command: invocation.rest,
    env: await readEnvironment(invocation.texts('env'), invocation.texts('env-file')),
    ...(user === undefined ? {} : { user }),
    ...(workdir === undefined ? {} : { workdir }),
    terminal: invocation.flag('tty'),
    interactive: invocation.flag('interactive'),
    ...(size === undefined ? {} : { terminal_size: size }),
  });
  if (parsed.success) return parsed.data;
  if (invocation.rest.length === 0) {
    throw new ImgcredError('USAGE', 'imgcred exec: no command was given', {
      hint: 'imgcred exec CONTAINER -- COMMAND',
    });
  }
  const issue = parsed.error.issues[0];
  throw new ImgcredError('USAGE', `imgcred exec: ${String(issue?.path[0])}: ${issue?.message}`);
}
