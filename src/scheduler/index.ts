export { GatewayLink } from './gateway-link.ts';
export * from './scheduler.ts';
export { workerRoutes } from './worker-routes.ts';
