export { type ContainerRuntime, findRuntime, superviseContainer } from './containers/index.ts';
export { HttpWorkerLink } from './http-worker-link.ts';
export { Worker, type WorkerOptions } from './worker.ts';
