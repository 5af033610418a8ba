"""An XGBoost model of digits, trained on several replicas."""
