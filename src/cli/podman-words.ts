// What who comes from podman types, and what there is here instead.
const INSTEAD_OF_COMMAND: Readonly<Record<string, string>> = {
  pull: 'nothing is pulled: imgcred image add REFERENCE registers an image, and what a run reads is fetched then',
  push: 'imgcred index push stores an image’s index beside it; the image itself is another tool’s',
  build: 'imgcred runs images that others have built and pushed',
  login:
    'give the login with the image: imgcred image add REFERENCE --creds-env REGISTRY_USERNAME,REGISTRY_PASSWORD',
  logout: 'imgcred secret ls lists the logins, imgcred secret rm NAME deletes one',
  create: 'imgcred run --detach makes a container and starts it',
  start: 'a container is run once: imgcred run makes another',
  restart: 'a container is run once: imgcred run makes another; imgcred run --restart has it started again',
  top: 'imgcred container stats counts its processes; imgcred exec CONTAINER -- ps lists them',
  info: 'imgcred doctor tells what this machine can do, imgcred version which version this is',
  system: 'imgcred cache stat and imgcred cache prune see to the space',
  volume: 'there are no volumes: run --mount type=bind,source=DIR,target=DIR',
  network: 'there are no networks: run --network none or host',
};

/** What to use instead of a command of podman's that imgcred does not have. */
export function insteadOfCommand(words: string): string | undefined {
  const [first = '', second = ''] = words.split(' ');
  const word = ['image', 'container'].includes(first) ? second : first;
  return Object.hasOwn(INSTEAD_OF_COMMAND, word) ? INSTEAD_OF_COMMAND[word] : undefined;
}

const INSTEAD_OF_OPTION: Readonly<Record<string, string>> = {
  format: '--json prints everything: pick from it with jq',
  filter: '--json prints everything: pick from it with jq',
  f: '--json prints everything: pick from it with jq',
  'no-trunc': 'nothing is cut but long commands; --json has these too',
  publish: 'a container has no network of its own: --network host shares the machine’s',
  p: 'a container has no network of its own: --network host shares the machine’s',
  tmpfs: 'write --mount type=tmpfs,target=DIR',
  privileged: 'name what it needs: --cap-add CAP, --mount type=bind,source=/dev/…,target=/dev/…',
  pull: 'nothing is pulled: register the image again to take a new one, imgcred image add REFERENCE',
  creds: 'use --creds-env NAMES, --creds-file FILE or --creds-stdin',
  authfile: '--creds-file FILE takes a docker config.json',
  'tls-verify': '--insecure-registry HOST speaks to that registry without TLS',
};

/** What to use instead of an option of podman's that imgcred does not have. */
export function insteadOfOption(name: string): string | undefined {
  return Object.hasOwn(INSTEAD_OF_OPTION, name) ? INSTEAD_OF_OPTION[name] : undefined;
}
