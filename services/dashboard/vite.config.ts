import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// `FERROFLOW_URL=http://localhost:8080 npm run dev` develops against a running Ferroflow.
const target = process.env.FERROFLOW_URL ?? "http://localhost:8080";
const paths = ["/apis", "/kube", "/serving", "/artifacts", "/notebook", "/readyz"];

export default defineConfig({
  plugins: [react()],
  build: { chunkSizeWarningLimit: 1200, assetsInlineLimit: 0 },
  server: { proxy: Object.fromEntries(paths.map((path) => [path, { target, ws: true }])) },
});
