import react from "@vitejs/plugin-react";
import { defineConfig, type ProxyOptions } from "vite";

// `FERROFLOW_URL=http://localhost:8080 npm run dev` develops against a running Ferroflow.
const target = process.env["FERROFLOW_URL"] ?? "http://localhost:8080";
const paths = ["/apis", "/kube", "/serving", "/artifacts", "/notebook", "/readyz"];

// The gateway refuses requests of other origins; to it, the development server's pages are its own.
const proxy: ProxyOptions = {
  target,
  changeOrigin: true,
  ws: true,
  configure: (server) => {
    server.on("proxyReq", (request) => request.getHeader("origin") && request.setHeader("origin", target));
    server.on("proxyReqWs", (request) => request.setHeader("origin", target));
  },
};

export default defineConfig({
  plugins: [react()],
  build: { assetsInlineLimit: 0, chunkSizeWarningLimit: 700 },
  server: { proxy: Object.fromEntries(paths.map((path) => [`^${path}(/|$)`, proxy])) },
});
