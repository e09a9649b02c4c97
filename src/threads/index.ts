export { Semaphore } from './semaphore.ts';
export { NoThreadError, openThread, runTask, serveTask, type ThreadTask } from './task.ts';
