export {
  type ContainerRuntime,
  findRuntime,
  type HostFacts,
  readHostFacts,
  superviseContainer,
} from './containers/index.ts';
export { HttpWorkerLink } from './http-worker-link.ts';
export { Worker, type WorkerOptions } from './worker.ts';
