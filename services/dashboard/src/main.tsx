import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { isRefused } from "./api/queries";
import { App } from "./app";
import { applyTheme } from "./parts/theme";
import "./style.css";

applyTheme();

const client = new QueryClient({
  // Ferroflow may run on this machine: being offline is no reason not to ask it
  defaultOptions: { queries: { retry: (count, error) => count < 1 && !isRefused(error), refetchOnWindowFocus: true, staleTime: 500, networkMode: "always" }, mutations: { networkMode: "always" } },
});

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <BrowserRouter>
          <App />
        </BrowserRouter>
      </QueryClientProvider>
    </StrictMode>,
  );
}
